"""Gadget `length`: drop captions that are shorter or longer than their granularity asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget
from captioning.curate.text_rules.words import WordLimits
from pipeline.config import Section, added

TOO_SHORT = "too_short"
TOO_LONG = "too_long"


class LengthConfig(Section):
    """Limits of length for each granularity, and for alt texts, in words."""

    word: WordLimits = WordLimits(min=1, max=30)
    phrase: WordLimits = WordLimits(min=1, max=25)
    sentence: WordLimits = WordLimits(min=2, max=70)
    paragraph: WordLimits = WordLimits(min=6, max=400)
    alt_text: WordLimits = added(WordLimits(min=1, max=60))

    def limits(self) -> Mapping[str, WordLimits]:
        """The limits by granularity."""
        return {
            "word": self.word,
            "phrase": self.phrase,
            "sentence": self.sentence,
            "paragraph": self.paragraph,
            "alt_text": self.alt_text,
        }


class Length(Gadget):
    """Counts words; a granularity without limits of its own is let through."""

    name = "length"
    settings = LengthConfig
    judges = "texts"
    origins = ("model", "alt_text")
    after = "ending"
    made_from = ("length",)
    reads = ("granularity",)
    reasons: ClassVar[Mapping[str, str]] = {
        TOO_SHORT: "fewer words than its granularity asks for",
        TOO_LONG: "more words than its granularity allows",
    }

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
                draft.drop(row, self, TOO_SHORT)
            elif count > limits.max:
                draft.drop(row, self, TOO_LONG)


GADGET = Length
