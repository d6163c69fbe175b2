"""The caption browser: a workspace's images, captions and verdicts as server-rendered pages."""
