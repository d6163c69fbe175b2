"""Gadget `reject`: drop what is no caption at all: failed rows, refusals, talk about itself, loops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from operator import eq

from captioning.curate.config import RejectConfig
from captioning.curate.draft import Draft
from captioning.curate.phrases import Phrases
from captioning.curate.reasons import Reason
from captioning.curate.words import words

_STUTTER = re.compile(r"([^\d])\1{7,}")  # "aaaaaaaa", "!!!!!!!!"
LONGEST_WORD = 45  # a longer one is a loop without spaces


class Reject:
    """Drops by what a single text says; needs no other caption and no model."""

    name = "reject"
    reads = ("status",)
    reasons = (Reason.ERROR, Reason.EMPTY, Reason.REFUSAL, Reason.META, Reason.REPETITION)

    def __init__(self, config: RejectConfig, phrases: Phrases) -> None:
        self.config, self.phrases = config, phrases

    def apply(self, draft: Draft) -> None:
        """Judge every open row and note how much of it is repetition."""
        status = draft.columns["status"]
        for row in draft.open_rows():
            reason = Reason.ERROR if status[row] != "ok" else self._judge(draft.texts[row], draft.scores[row])
            if reason is not None:
                draft.drop(row, self, reason)

    def _judge(self, text: str, scores: dict[str, float]) -> Reason | None:
        tokens = words(text)
        if not tokens:
            return Reason.EMPTY
        if self.phrases.refusal.match(text):
            return Reason.REFUSAL
        if self.phrases.meta.search(text):
            return Reason.META
        scores["repetition"] = repetition(tokens)
        return Reason.REPETITION if self._loops(text, tokens, scores["repetition"]) else None

    def _loops(self, text: str, tokens: Sequence[str], repeated: float) -> bool:
        return (
            repeated > self.config.max_repetition
            or longest_run(tokens) > self.config.max_run
            or len(max(tokens, key=len)) > LONGEST_WORD
            or _STUTTER.search(text) is not None
        )


def repetition(tokens: Sequence[str]) -> float:
    """Share of the word trigrams that came before in the text, 0 to 1."""
    trigrams = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def longest_run(tokens: Sequence[str]) -> int:
    """How often the most repeated word stands in a row."""
    if not any(map(eq, tokens, tokens[1:])):  # nearly every text, and four times as fast
        return min(len(tokens), 1)
    return max(sum(1 for _ in run) for _, run in groupby(tokens))
