"""Gadget `length`: drop captions that are shorter or longer than their granularity asks for."""

from __future__ import annotations

from captioning.curate.config import LengthConfig
from captioning.curate.draft import Draft
from captioning.curate.reasons import Reason


class Length:
    """Counts words; a granularity without limits of its own is let through."""

    name = "length"
    reads = ("granularity",)
    reasons = (Reason.TOO_SHORT, Reason.TOO_LONG)

    def __init__(self, config: LengthConfig) -> None:
        self.limits = config.limits()

    def apply(self, draft: Draft) -> None:
        """Count the words of every open row and drop those outside the limits."""
        granularity = draft.columns["granularity"]
        for row in draft.open_rows():
            count = len(draft.words(row))
            draft.scores[row]["words"] = count
            limits = self.limits.get(granularity[row])
            if limits is None:
                continue
            if count < limits.min:
                draft.drop(row, self, Reason.TOO_SHORT)
            elif count > limits.max:
                draft.drop(row, self, Reason.TOO_LONG)
