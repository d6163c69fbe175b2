"""Ordering the stages: the `holism` command, the Prefect flow and its deployments."""
