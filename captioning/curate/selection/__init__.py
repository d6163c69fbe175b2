"""Which captions of an image to keep: how alike they are, and how a diverse set is chosen."""
