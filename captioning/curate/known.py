"""What is known of the corpus when images are judged, and what is measured: the results of the steps before.

Plain data, sent to whatever process judges a shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from captioning.curate.measures.measured import Measured


@dataclass(frozen=True)
class Known:
    """`crowded` buckets of near-duplicates, the lowest image-text score by perspective (`thresholds`), the words that
    stand for things (`objects`), and the measures that the configuration asks for."""

    crowded: Mapping[int, int] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    objects: tuple[str, ...] = ()
    image_text: Measured | None = None
    embed: Measured | None = None
