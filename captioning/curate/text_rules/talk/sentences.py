"""A text as sentences without what it quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import regex

from captioning.curate.text_rules.talk.quotes import unquoted
from captioning.curate.text_rules.talk.vocabulary import TalkWords
from captioning.curate.text_rules.words import OTHER_STOP, STOP, split

_END = regex.compile(rf"(?V1)(?<={STOP})[)\"”’*]*\s+|(?<={OTHER_STOP})|\n+")
_ASCII_END = re.compile(r"(?<=[.!?])[)\"*]*\s+|\n+")  # the same, and quicker
QUESTION_MARKS = "?？؟፧⁇⁈"
_ASKING = frozenset(QUESTION_MARKS)
_AFTER_QUESTION = '!)"”’* \t\n'
_MOST_SKIPPED = 40  # words
_SHOUTS = 4  # letters from which on a text in capitals tells nothing by them


@dataclass(frozen=True)
class Sentence:
    """The words of a sentence as written and in lower case, up to where it quotes, and whether it asks."""

    raw: tuple[str, ...]
    words: tuple[str, ...]
    asks: bool

    def has(self, some: frozenset[str], start: int = 0, stop: int | None = None) -> bool:
        """Whether one of some words is among those from start to stop."""
        return not some.isdisjoint(self.words[start:stop])

    def capital(self, at: int) -> bool:
        """Whether there is a word in this place, and it is written with a capital letter."""
        return at < len(self.raw) and self.raw[at][:1].isupper()

    def after(self, at: int, skipped: frozenset[str]) -> int:
        """The first place, from `at` on, of a word that is none of those skipped; nobody says many in a row."""
        stop = min(at + _MOST_SKIPPED, len(self.words))
        while at < stop and self.words[at] in skipped:
            at += 1
        return at


def sentences(text: str) -> list[str]:
    """The sentences of a text, with nothing but a quotation mark where it quotes."""
    text = unquoted(text)
    return (_ASCII_END if text.isascii() else _END).split(text)


def sentence_of(part: str, vocabulary: TalkWords) -> Sentence:
    """A sentence's words up to one after which it quotes ("a sign reads …")."""
    raw = tuple(split(part))
    words = tuple(word.lower().replace("’", "'") for word in raw)
    stop = next((at + 1 for at, word in enumerate(words[:-1]) if word in vocabulary.says), None)
    if part.isupper() and len(part) > _SHOUTS:
        raw = words
    return Sentence(raw[:stop], words[:stop], stop is None and asks(part))


def asks(part: str) -> bool:
    """Whether a sentence ends in a question mark."""
    tail = part[len(part.rstrip(_AFTER_QUESTION + QUESTION_MARKS)) :]
    return not _ASKING.isdisjoint(tail)
