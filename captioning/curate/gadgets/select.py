"""Gadget `select`: keep the captions of an image that differ most from each other.

Greedy max-min selection (farthest point first): the next caption is the one whose most similar selected caption
is least similar. It is within a factor of two of the best possible minimum distance (Gonzalez, 1985), needs no
model, and with ties broken by caption_id it does not depend on the order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from captioning.curate.config import SelectConfig
from captioning.curate.draft import Draft
from captioning.curate.reasons import Reason


class Select:
    """Keeps at least one caption of every image that has an acceptable one."""

    name = "select"
    reads = ("perspective", "granularity")
    reasons = (Reason.REDUNDANT, Reason.OVER_LIMIT)

    def __init__(self, config: SelectConfig, *, coverage: bool) -> None:
        self.config, self.coverage = config, coverage

    def apply(self, draft: Draft) -> None:
        """Select within every image and note how near each caption is to the nearest selected one."""
        for image in draft.images:
            rows = draft.open_of(image)
            if not rows:
                continue
            offsets = [row - image.start for row in rows]
            similarity = draft.similarity(image)[np.ix_(offsets, offsets)]
            slots = [draft.slot(row) for row in rows] if self.coverage else None
            chosen = select(similarity, slots, self.config.max_captions, self.config.max_similarity)
            self._record(draft, rows, similarity, chosen)

    def _record(self, draft: Draft, rows: list[int], similarity: np.ndarray, chosen: list[int]) -> None:
        kept = set(chosen)
        for position, row in enumerate(rows):
            others = [other for other in chosen if other != position]
            nearest = float(similarity[position, others].max()) if others else 0.0
            draft.scores[row]["nearest"] = nearest
            if position not in kept:
                too_near = nearest > self.config.max_similarity
                draft.drop(row, self, Reason.REDUNDANT if too_near else Reason.OVER_LIMIT)


def select(similarity: np.ndarray, slots: Sequence[Any] | None, max_captions: int, max_similarity: float) -> list[int]:
    """Positions selected, in the order of selection; ties go to the first position.

    `similarity` is (captions, captions). The first caption is the one least similar to all others. Then, while
    there are slots (if given) without a caption, only captions of those slots are looked at, and every slot gets
    one, even beyond `max_captions`. After that captions are added until there are `max_captions`, or all that are
    left are more similar than `max_similarity` to a selected one.
    """
    if len(similarity) == 0:
        return []
    slot_of = slots if slots is not None else [None] * len(similarity)  # one slot for all: the first caption fills it
    left = set(range(len(similarity)))
    missing = set(slot_of)
    nearest = similarity.sum(axis=1)  # to all others: decides the first; later to the nearest selected caption
    chosen: list[int] = []
    while left:
        eligible = [i for i in left if slot_of[i] in missing] if missing else left
        best = min(eligible, key=lambda i: (nearest[i], i))
        if not missing and (len(chosen) >= max_captions or nearest[best] > max_similarity):
            break
        nearest = np.maximum(nearest, similarity[best]) if chosen else similarity[best].copy()
        chosen.append(best)
        left.remove(best)
        missing.discard(slot_of[best])
    return chosen
