"""What is expensive to compute about a caption, kept by content so that no threshold makes it anew."""
