"""Gadget `ground`: drop captions that do not fit their picture, as an image-text score says.

What models invent, and captions that came to the wrong image, read well; only a model that sees can tell. Thresholds
are given by perspective: the scores of noun lists and of long descriptions lie in different ranges.
"""

from __future__ import annotations

from collections.abc import Mapping

from captioning.curate.draft import Draft
from captioning.curate.measures.image_text import READS
from captioning.curate.measures.measured import Measured
from captioning.curate.reasons import Reason

SCORE = "image_text"


class Ground:
    """Drops what scores below the threshold of its perspective, and notes every score.

    `thresholds` are those of `corpus.score_histogram.thresholds`; the entry '' is for perspectives without their own.
    A caption that cannot be scored is let through.
    """

    name = "ground"
    reads = ("perspective", *READS)
    reasons = (Reason.UNGROUNDED,)

    def __init__(self, measured: Measured, thresholds: Mapping[str, float]) -> None:
        self.measured, self.thresholds = measured, thresholds

    def apply(self, draft: Draft) -> None:
        """Score all open rows at once, then judge each."""
        rows, perspectives = list(draft.open_rows()), draft.columns["perspective"]
        lowest = self.thresholds.get("", -1.0)
        for row, score in zip(rows, self.measured(draft, rows).tolist(), strict=True):
            if score == score:  # not NaN
                draft.scores[row][SCORE] = score
                if score < self.thresholds.get(perspectives[row], lowest):
                    draft.drop(row, self, Reason.UNGROUNDED)
