"""Gadget `ground`: drop captions that do not fit their picture, as an image-text score says.

What models invent, and captions that came to the wrong image, read well; only a model that sees can tell. Thresholds
are given by perspective: the scores of noun lists and of long descriptions lie in different ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, model_validator

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given, names_perspectives
from captioning.curate.measures.config import ScorerConfig
from captioning.curate.measures.image_text import READS, SCORE
from captioning.curate.measures.measured import Measured
from pipeline.config import Section

UNGROUNDED = "ungrounded"


class Threshold(Section):
    """The lowest score that is kept: a value, or the quantile of all scores of the perspective."""

    value: float | None = Field(default=None, ge=-1, le=1, description="the lowest score that is kept")
    quantile: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="instead: share of captions, those of the lowest scores, that may be dropped",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Threshold:
        if (self.value is None) == (self.quantile is None):
            raise ValueError("expected either value or quantile")
        return self


class GroundConfig(Section):
    """Which captions do not fit their picture. Off until a scorer is named."""

    scorer: ScorerConfig | None = Field(
        None, description="the model that scores; empty: none, and nothing is dropped for its score"
    )
    threshold: Threshold = Threshold(quantile=0.05)
    perspectives: dict[str, Threshold] = names_perspectives({}, "other thresholds, by perspective")


class Ground(Gadget):
    """Drops what scores below the threshold of its perspective, and notes every score.

    `thresholds` are those of `corpus.score_histogram.thresholds`; the entry '' is for perspectives without their own.
    A caption that cannot be scored is let through.
    """

    name = "ground"
    settings = GroundConfig
    judges = "images"
    after = "boilerplate"
    made_from = ()  # the scorer and its thresholds are known of the corpus
    reads = ("perspective", *READS)
    reasons: ClassVar[Mapping[str, str]] = {
        UNGROUNDED: "it does not fit the picture, as the image-text score says",
    }

    def __init__(self, measured: Measured, thresholds: Mapping[str, float]) -> None:
        self.measured, self.thresholds = measured, thresholds

    @classmethod
    def make(cls, given: Given) -> Self | None:
        return None if given.known.image_text is None else cls(given.known.image_text, given.known.thresholds)

    def apply(self, draft: Draft) -> None:
        """Score all open rows at once, then judge each."""
        rows, perspectives = list(draft.open_rows()), draft.columns["perspective"]
        lowest = self.thresholds.get("", -1.0)
        for row, score in zip(rows, self.measured(draft, rows).tolist(), strict=True):
            if score == score:  # not NaN
                draft.scores[row][SCORE] = score
                if score < self.thresholds.get(perspectives[row], lowest):
                    draft.drop(row, self, UNGROUNDED)


GADGET = Ground
