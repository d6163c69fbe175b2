"""Gadget `unsafe`: drop texts with words of a list: sexual content, graphic violence, slurs.

The list is data (`unsafe.yaml`, or a file of your own) and is matched by whole words, so "Scunthorpe" is a town. It
is a guard against the worst of what models write about crawled pictures, and no judgement of pictures or meanings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget
from captioning.curate.text_rules.unsafe_list import load_list
from pipeline.config import Section

UNSAFE = "unsafe"


class UnsafeConfig(Section):
    """Words that no caption should have."""

    enabled: bool = Field(True, description="whether captions with such words are dropped")
    list: str | None = Field(default=None, description="a YAML file of your own in place of unsafe.yaml")


class Unsafe(Gadget):
    """Drops every text that has a word, a phrase or a pattern of the list."""

    name = "unsafe"
    settings = UnsafeConfig
    judges = "texts"
    origins = ("model", "alt_text")
    after = "language"
    made_from = ("unsafe",)
    reasons: ClassVar[Mapping[str, str]] = {
        UNSAFE: "it has a word of the list of unsafe ones",
    }

    def __init__(self, config: UnsafeConfig) -> None:
        self.config = config
        listed = load_list(config.list)
        self._pattern = listed.pattern
        self._words = frozenset(phrase[0] for phrase in listed.phrases if len(phrase) == 1)
        self._phrases: dict[str, set[tuple[str, ...]]] = {}
        for phrase in listed.phrases:
            if len(phrase) > 1:  # the longest word is the rarest: few texts have it
                self._phrases.setdefault(max(phrase, key=len), set()).add(phrase)
        self._rare = frozenset(self._phrases)
        self._telling = self._words | self._rare

    def apply(self, draft: Draft) -> None:
        """Look every open row up."""
        if not self.config.enabled:
            return
        for row in draft.open_rows():
            if self.is_unsafe(draft.texts[row], draft.words(row)):
                draft.drop(row, self, UNSAFE)

    def is_unsafe(self, text: str, tokens: tuple[str, ...]) -> bool:
        """Whether the text has anything of the list."""
        if not self._telling.isdisjoint(tokens) and (not self._words.isdisjoint(tokens) or self._has_phrase(tokens)):
            return True
        return self._pattern is not None and self._pattern.search(text) is not None

    def _has_phrase(self, tokens: tuple[str, ...]) -> bool:
        candidates = {phrase for word in self._rare.intersection(tokens) for phrase in self._phrases[word]}
        return any(
            tokens[start : start + len(phrase)] == phrase
            for phrase in candidates
            for start in range(len(tokens) - len(phrase) + 1)
        )


GADGET = Unsafe
