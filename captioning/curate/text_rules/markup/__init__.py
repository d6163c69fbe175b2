"""What models and their templates leave around a caption: tokens, tags, code, JSON, boxes, bullets."""
