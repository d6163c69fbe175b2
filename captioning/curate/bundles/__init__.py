"""Bundles: the training view of an image."""
