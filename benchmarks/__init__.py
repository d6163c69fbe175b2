"""Measurements, each a program of its own, run from the checkout: `python -m benchmarks.NAME`."""
