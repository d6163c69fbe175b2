"""Engines answer questions about images. They share one small protocol, see `base`."""
