"""What the numbers of label masks mean, and how a picture is asked about its regions: all that decides a dense figure.

In a mask each pixel holds a number. Numbers stand for classes or for the background; any other number is left out of
the mean IoU, and 255 is unlabelled: it counts nowhere.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from evaluation.classes import DIGITS, HOLE, Classes
from pipeline import identity
from pipeline.config import Section

UNLABELLED = 255
BACKGROUND = "background"  # what it is called in tables


class Sliding(Section):
    """A picture seen in overlapping windows, each as large as the model's input, in multiples of that input's side.

    A model of 224 pixels with a short side of 1.5 and a stride of 0.5 sees 336 pixels in windows 112 apart.
    """

    short_side: float = Field(1.5, ge=1, description="what the picture's short side is scaled to")
    stride: float = Field(0.5, gt=0, le=1, description="from one window to the next")


class Regions(Classes):
    """Zero-shot segmentation: classes with their names in templates, and which numbers of the masks they have."""

    first: int = Field(0, ge=0, lt=UNLABELLED, description="number of the first class; the others follow")
    further: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="further numbers of classes, by the class's name"
    )
    synonyms: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="further names of classes; the best of a class's names counts"
    )
    background: int | None = Field(None, description="number of what is no class; empty: it is left out")
    background_names: tuple[str, ...] = Field((), description="texts that are asked for the background")
    threshold: float | None = Field(
        None, gt=0, lt=1, description="probability of the best name below which a pixel is background"
    )
    scale: float = Field(100.0, gt=0, description="what cosines are multiplied with for that probability")
    sliding: Sliding | None = Field(
        None, description="empty: the whole picture at once, scaled to the model's square input"
    )
    pointing: bool = Field(True, description="whether classes are things that can be pointed at")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if unknown := [name for name in (*self.synonyms, *self.further) if name not in self.classes]:
            raise ValueError(f"synonyms or further numbers are given for {unknown[0]!r}, which is no class")
        if self.first + len(self.classes) > UNLABELLED:
            raise ValueError(f"{len(self.classes)} classes from number {self.first} on reach {UNLABELLED}, unlabelled")
        asked = self.threshold is not None or bool(self.background_names)
        if asked != (self.background is not None):
            raise ValueError("a background needs its number in the masks, and a threshold or background_names")
        if self.background is not None and 0 <= self.background - self.first < len(self.classes):
            raise ValueError(
                f"number {self.background} is the background and the class "
                f"{self.classes[self.background - self.first]!r}"
            )
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """What a pixel can be: the classes, and the background last where it counts."""
        return self.classes if self.background is None else (*self.classes, BACKGROUND)

    @property
    def names(self) -> list[tuple[str, int]]:
        """All names that are asked, each with the place of its label."""
        own = [
            (name, place)
            for place, first in enumerate(self.classes)
            for name in (first, *self.synonyms.get(first, ()))
        ]
        return [*own, *((name, len(self.classes)) for name in self.background_names)]

    def prompts(self) -> list[list[str]]:
        """For each name its sentences, in the order of `names`."""
        return [[template.replace(HOLE, name) for template in self.templates] for name, _ in self.names]

    @property
    def seen(self) -> str:
        """How a picture reaches the model, for protocols."""
        if self.sliding is None:
            return "whole"
        return f"short_{self.sliding.short_side:g}_stride_{self.sliding.stride:g}"

    @property
    def protocol(self) -> str:
        """How a picture is seen, what background is, how many templates; a digest of these, of names and numbers."""
        parts = [self.seen]
        if self.threshold is not None:
            parts.append(f"threshold_{self.threshold:g}_scale_{self.scale:g}")
        if self.background_names:
            parts.append(f"{len(self.background_names)}_background_names")
        return "_".join([*parts, self._texts])

    @property
    def pointing_protocol(self) -> str:
        """The same of the pointing game, in which there is no background."""
        return f"{self.seen}_{self._texts}"

    @property
    def _texts(self) -> str:
        decides = [self.names, list(self.templates), self.first, self.background, sorted(self.further.items())]
        return f"{len(self.templates)}_templates_{identity.digest(decides)[:DIGITS]}"
