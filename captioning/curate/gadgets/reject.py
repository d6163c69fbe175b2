"""Gadget `reject`: drop what is no caption at all: failed rows, refusals, talk about itself, markup, loops."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import eq
from typing import ClassVar, Self

from pydantic import Field

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given, names_perspectives
from captioning.curate.text_rules.phrases import Phrases, load_phrases
from captioning.curate.text_rules.talk.quotes import unquoted
from captioning.curate.text_rules.talk.sentences import QUESTION_MARKS
from captioning.curate.text_rules.talk.talk import META, REFUSAL, Talk
from pipeline.config import Section

_STUTTER = re.compile(r"([^\d])\1{7}")  # "aaaaaaaa", "!!!!!!!!"
_STUTTER_LENGTH = 8
_SOUND: set[str] = set()  # words that have been looked at: the same come again and again
_SOUND_WORDS = 100_000
LONGEST_WORD = 45  # letters; a longer one is a loop without spaces
ROUNDS = 3  # a text that ends in the same words three times over runs in a loop
_TRIGRAM = 3
ERROR = "error"
EMPTY = "empty"
MARKUP = "markup"
REPETITION = "repetition"


class RejectConfig(Section):
    """What `reject` takes for a loop, and where it listens less; errors and empty texts always go."""

    max_repetition: float = Field(
        default=0.4, ge=0, le=1, description="largest share of word trigrams that came before in the text"
    )
    max_run: int = Field(default=2, ge=1, description="how often one word may be repeated in a row")
    quoting: tuple[str, ...] = names_perspectives(
        ("text",), "perspectives that quote what is written in a picture, in any person"
    )


class Reject(Gadget):
    """Drops by what a single text says; needs no other caption and no model."""

    name = "reject"
    settings = RejectConfig
    judges = "texts"
    after = "clean"
    made_from = ("reject", "phrases")
    reads = ("status", "perspective")
    reasons: ClassVar[Mapping[str, str]] = {
        ERROR: "the engine gave no answer",
        EMPTY: "nothing is left after cleaning",
        REFUSAL: "the model refused",
        META: "the model talks about itself or the request",
        MARKUP: "tags, tokens or code around the caption could not be told from it",
        REPETITION: "the text runs in a loop",
    }

    def __init__(self, config: RejectConfig, phrases: Phrases) -> None:
        self.config, self.phrases = config, phrases
        self.talk = Talk(phrases.talk)
        searches = (*phrases.meta, *phrases.markup)
        self._always = any(not search.words and not search.marks for search in searches)
        self._telling = phrases.talk.signals.union(*(search.words for search in searches))
        marks = {*QUESTION_MARKS, *(mark for search in searches for mark in search.marks)}
        self._marks = re.compile("|".join(map(re.escape, sorted(marks))))

    @classmethod
    def make(cls, given: Given) -> Self:
        return cls(given.settings["reject"], load_phrases(given.settings["phrases"]))

    def apply(self, draft: Draft) -> None:
        """Judge every open row and note how much of it is repetition."""
        status, perspectives = draft.columns["status"], draft.columns["perspective"]
        for row in draft.open_rows():
            if status[row] != "ok":
                draft.drop(row, self, ERROR)
                continue
            reason = self._says_why(draft.texts[row], draft.words(row), perspectives[row])
            if reason is None:
                draft.scores[row]["repetition"] = repeated = repetition(draft.words(row))
                reason = REPETITION if self._loops(draft.texts[row], draft.words(row), repeated) else None
            if reason is not None:
                draft.drop(row, self, reason)

    def _says_why(self, text: str, tokens: Sequence[str], perspective: str) -> str | None:
        """The reason that the text itself gives, if it is no caption."""
        if not tokens:
            return EMPTY
        if self.phrases.refusal.match(text):
            return REFUSAL
        if self._telling.isdisjoint(tokens) and not self._always and not self._marks.search(text):
            return None  # a quick look, which nearly all captions end
        if any(search.found_in(text, tokens) for search in self.phrases.markup):
            return MARKUP
        said = unquoted(text)
        if any(search.found_in(said, tokens) for search in self.phrases.meta):
            return META
        return self.talk.judge(text, quotes=perspective in self.config.quoting)

    def _loops(self, text: str, tokens: Sequence[str], repeated: float) -> bool:
        return (
            repeated > self.config.max_repetition
            or longest_run(tokens) > self.config.max_run
            or (repeated > 0 and ends_in_loop(tokens))
            or stutters(text, tokens)
        )


def stutters(text: str, tokens: Sequence[str]) -> bool:
    """Whether one character stands eight times in a row, or a word has no end."""
    if not _SOUND.issuperset(tokens) and not all(map(_is_sound, tokens)):
        return True
    if not text.isascii():
        return _STUTTER.search(text) is not None
    # so many marks in a row make the text longer than its words with a mark between each two
    marks = len(text) - len("".join(tokens))
    return marks > len(tokens) + _STUTTER_LENGTH - 3 and _STUTTER.search(text) is not None


def _is_sound(word: str) -> bool:
    if word in _SOUND:
        return True
    if sum(map(str.isalnum, word)) > LONGEST_WORD or _STUTTER.search(word):
        return False
    if len(_SOUND) >= _SOUND_WORDS:
        _SOUND.clear()
    _SOUND.add(word)
    return True


def repetition(tokens: Sequence[str]) -> float:
    """Share of the word trigrams that came before in the text, 0 to 1."""
    trigrams = len(tokens) - _TRIGRAM + 1
    if trigrams < 2 or len(tokens) - len(set(tokens)) < _TRIGRAM:  # a trigram that comes again has as many old words
        return 0.0
    return 1 - len(set(zip(tokens, tokens[1:], tokens[2:], strict=False))) / trigrams


def longest_run(tokens: Sequence[str]) -> int:
    """How often the most repeated word stands in a row."""
    if not any(map(eq, tokens, tokens[1:])):  # nearly every text, and four times as fast
        return min(len(tokens), 1)
    return max(sum(1 for _ in run) for _, run in groupby(tokens))


def ends_in_loop(tokens: Sequence[str]) -> bool:
    """Whether the last words are the same ones three times over, the last time perhaps cut in the middle.

    One word alone is left to `longest_run`. The end decides: a loop that started late is a small share of a long text.
    """
    return any(
        same >= (ROUNDS - 1) * period or (period > _TRIGRAM and same >= (ROUNDS - 1.5) * period)
        for period, same in enumerate(_same_from(tokens[::-1]))
        if 2 <= period <= len(tokens) // 2
    )


def _same_from(tokens: Sequence[str]) -> list[int]:
    """How many words from each place on are those from the start on (the Z algorithm: linear in the words)."""
    same = [len(tokens)] + [0] * (len(tokens) - 1)
    left = right = 0  # the place whose words reached farthest, and where they ended
    for place in range(1, len(tokens)):
        known = min(right - place, same[place - left]) if place < right else 0
        while place + known < len(tokens) and tokens[known] == tokens[place + known]:
            known += 1
        same[place] = known
        if place + known > right:
            left, right = place, place + known
    return same


GADGET = Reject
