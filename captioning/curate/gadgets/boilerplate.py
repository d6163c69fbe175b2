"""Gadget `boilerplate`: drop sentences that say nearly the same about thousands of images.

What fits so many images says nothing about this one, and in a contrastive batch it is a false negative of all the
others. All of them go: there is no image for which it is the right one to keep.
"""

from __future__ import annotations

from collections.abc import Mapping

from captioning.curate.corpus.near_duplicates import NearDuplicates
from captioning.curate.draft import Draft
from captioning.curate.reasons import Reason


class Boilerplate:
    """Drops the rows that lie in a crowded bucket; `crowded` is what `NearDuplicates` merges to: images by bucket."""

    name = "boilerplate"
    reads: tuple[str, ...] = ()
    reasons = (Reason.BOILERPLATE,)

    def __init__(self, statistic: NearDuplicates, crowded: Mapping[int, int]) -> None:
        self.statistic, self.crowded = statistic, crowded

    def apply(self, draft: Draft) -> None:
        """Note how many images share the sentence, and drop it. Nearly every corpus has few such, if any."""
        if not self.crowded:
            return
        rows = self.statistic.rows(draft)
        buckets = self.statistic.buckets([draft.words(row) for row in rows])
        for row, own in zip(rows, buckets.tolist(), strict=True):
            images = max((self.crowded[bucket] for bucket in own if bucket in self.crowded), default=0)
            if images:
                draft.scores[row]["images_alike"] = float(images)
                draft.drop(row, self, Reason.BOILERPLATE)
