"""A text as sentences without what it quotes: words on a sign are nobody's talk."""

from __future__ import annotations

import re
from dataclasses import dataclass

from captioning.curate.talk.vocabulary import TalkWords
from captioning.curate.words import WORD

_QUOTED = re.compile(
    r"\"[^\"]*\"|“[^”]*”|„[^“”]*[“”]|«[^»]*»|`[^`]*`"
    r"|(?<!\w)'(?!\s)(?:[^'\n]|(?<=\w)'(?=\w))*'(?!\w)|(?<!\w)‘(?:[^’\n]|(?<=\w)’(?=\w))*’(?!\w)"
)
_MAY_QUOTE = re.compile(r"[\"“„«`‘]|(?<!\w)'")
_END = re.compile(r"(?<=[.!?…。！？])[)\"”’*]*\s+|\n+")
_ASKS = re.compile(r"[?？][\s!?)\"”’*]*$")
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
        """The first place, from `at` on, of a word that is none of those skipped."""
        while at < len(self.words) and self.words[at] in skipped:
            at += 1
        return at


def sentences(text: str) -> list[str]:
    """The sentences of a text, with nothing but a quotation mark where it quotes."""
    return _END.split(unquoted(text))


def unquoted(text: str) -> str:
    """The text with nothing but a quotation mark where it quotes."""
    text = text.replace("’", "'") if "‘" not in text else text
    return _QUOTED.sub(_quote, text) if _MAY_QUOTE.search(text) else text


def sentence_of(part: str, vocabulary: TalkWords) -> Sentence:
    """A sentence's words up to one after which it quotes ("a sign reads …")."""
    raw = tuple(WORD.findall(part))
    words = tuple(word.lower().replace("’", "'") for word in raw)
    stop = next((at + 1 for at, word in enumerate(words[:-1]) if word in vocabulary.says), None)
    if part.isupper() and len(part) > _SHOUTS:
        raw = words
    return Sentence(raw[:stop], words[:stop], stop is None and asks(part))


def asks(part: str) -> bool:
    """Whether a sentence ends in a question mark."""
    return _ASKS.search(part) is not None


def _quote(found: re.Match[str]) -> str:
    """What is left of a quotation: that there was one, and a full stop if it may end its sentence."""
    return '" .' if found[0][-2] in ".!?" else '"'
