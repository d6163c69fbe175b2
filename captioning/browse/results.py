"""What the browser is given to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.manifest import Manifest

STAGES = ("ingest", "caption", "curate")


@dataclass(frozen=True)
class Results:
    """A manifest per stage of `STAGES` that has one, and what a viewer has to know about how they belong together."""

    manifests: Mapping[str, Manifest]
    notes: tuple[str, ...] = ()


Find = Callable[[], Results]  # asked again whenever a manifest was written
