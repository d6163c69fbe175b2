"""Gadget `duplicates`: of captions of one image that say the same in the same words, keep one.

Compared after cleaning. Near-duplicates need a high similarity, and with coverage the last caption of a
(perspective, granularity) is spared: short answers to different questions share many words by nature.
"""

from __future__ import annotations

from collections import Counter

from captioning.curate.config import DuplicatesConfig
from captioning.curate.draft import Draft
from captioning.curate.reasons import Reason
from captioning.curate.words import words


class Duplicates:
    """Drops exact and near-duplicates within an image; of equals, the one whose slot has fewest others stays."""

    name = "duplicates"
    reads = ("perspective", "granularity")
    reasons = (Reason.DUPLICATE, Reason.NEAR_DUPLICATE)

    def __init__(self, config: DuplicatesConfig, *, coverage: bool) -> None:
        self.config, self.coverage = config, coverage

    def apply(self, draft: Draft) -> None:
        """Go over every image by itself."""
        for image in draft.images:
            rows = draft.open_of(image)
            if len(rows) > 1:
                self._drop_same(draft, rows)
                self._drop_near(draft, image, draft.open_of(image))

    def _drop_same(self, draft: Draft, rows: list[int]) -> None:
        others = Counter(draft.slot(row) for row in rows)
        seen: set[tuple[str, ...]] = set()
        for row in sorted(rows, key=lambda row: (others[draft.slot(row)], row)):
            spoken = words(draft.texts[row])
            if spoken in seen:
                draft.drop(row, self, Reason.DUPLICATE)
            seen.add(spoken)

    def _drop_near(self, draft: Draft, image: range, rows: list[int]) -> None:
        similarity = draft.similarity(image)
        left = Counter(draft.slot(row) for row in rows)
        stay: list[int] = []
        for row in sorted(rows, key=lambda row: (left[draft.slot(row)], row)):
            nearest = max((similarity[row - image.start, other - image.start] for other in stay), default=0.0)
            spared = self.coverage and left[draft.slot(row)] == 1
            if nearest > self.config.max_similarity and not spared:
                draft.drop(row, self, Reason.NEAR_DUPLICATE)
                left[draft.slot(row)] -= 1
            else:
                stay.append(row)
