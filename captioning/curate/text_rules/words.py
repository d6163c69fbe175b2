"""What counts as a word, the unit of length limits, loops and similarity, and what ends a sentence.

A word is a run of letters and digits with the marks that belong to them (vowel signs, points, accents), as Unicode has
them; apostrophes and hyphens join words. Scripts that are written without spaces are cut into words by ICU's
dictionaries: Chinese, Japanese, Thai, Lao, Khmer and Burmese. Of the few others of them (Javanese, Balinese, Tai Tham)
each character with its marks is a word.

What ends a sentence is Unicode's property Sentence_Terminal (danda, Arabic, Ethiopic, Chinese stops and more), the
ellipsis and the Tibetan shad, perhaps before a quotation mark or a bracket. Thai and Lao have no full stop: a text in
them ends where it ends.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from functools import lru_cache

import regex
from icu4py.breakers import WordBreaker
from pydantic import Field, model_validator

from pipeline.config import Section

_NO_WORD = {code: " " for code in range(128) if chr(code) not in string.ascii_letters + string.digits}
# Scripts with spaces and seldom a mark of its own: Latin, Greek, Cyrillic, and the punctuation around them.
_PLAIN_TEXT = re.compile("[\\0-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u1fff\u2010-\u2029\u2030-\u205e\u20a0-\u20bf]*")
_PLAIN = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_DICTIONARY = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}ー"
_NO_DICTIONARY = rf"[\p{{LB=SA}}\p{{Javanese}}\p{{Balinese}}--[{_DICTIONARY}]]"
_SPACED = rf"--[{_DICTIONARY}]--{_NO_DICTIONARY}]"
_FIRST, _NEXT = rf"[[\p{{L}}\p{{N}}]{_SPACED}", rf"[[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d]{_SPACED}*"
_ANY = regex.compile(
    rf"(?V1)([{_DICTIONARY}][{_DICTIONARY}\p{{M}}\u200b-\u200d]*)|{_NO_DICTIONARY}\p{{M}}*"
    rf"|{_FIRST}{_NEXT}(?:['’\-]{_FIRST}{_NEXT})*"
)
_MARKS = regex.compile(r"(\p{M}{30})\p{M}+")
_LOCALE = "en"  # that of the dictionaries does not depend on it
_LONG = 2_000  # characters; of longer texts nothing is remembered


def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without punctuation."""
    return _remembered(text) if len(text) < _LONG else cut(text)


def cut(text: str) -> tuple[str, ...]:
    """The same for whoever remembers the words of a text himself."""
    text = text.lower()
    if text.isascii() and "'" not in text and "-" not in text:  # most captions, and three times as fast
        return tuple(text.translate(_NO_WORD).split())
    return tuple(split(text))


# whoever has no draft at hand asks for the words of the same texts again and again
_remembered = lru_cache(maxsize=16_384)(cut)


def split(text: str) -> list[str]:
    """The words of a text as they are written."""
    if text.isascii() or _PLAIN_TEXT.fullmatch(text):
        return _PLAIN.findall(text)
    return list(_split(text))


def _split(text: str) -> Iterator[str]:
    for match in _ANY.finditer(text):
        if match[1] is None:
            yield match[0]
        else:
            yield from (word for word in WordBreaker(match[0], _LOCALE) if any(map(str.isalnum, word)))


def with_few_marks(text: str) -> str:
    """The text with 30 marks at most on a letter, as Unicode's stream-safe format has it: sorting more of them, which
    comes with composing a text, takes for ever.
    """
    return text if text.isascii() else _MARKS.sub(r"\1", text)


def singular(word: str) -> str:
    """An English noun with its number folded: `boats` and `boat`, `ladies` and `lady` are the same."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or word[-1] != "s" or word[-2] in "su":  # glass, bus
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1]


_IRREGULAR = {
    "men": "man", "women": "woman", "people": "person", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "leaves": "leaf", "knives": "knife", "wolves": "wolf", "shelves": "shelf",
    "loaves": "loaf", "calves": "calf", "scarves": "scarf", "halves": "half", "oxen": "ox", "policemen": "policeman",
    "firemen": "fireman", "fishermen": "fisherman", "potatoes": "potato", "tomatoes": "tomato", "species": "species",
    "series": "series", "cookies": "cookie", "movies": "movie", "pies": "pie", "ties": "tie", "zombies": "zombie",
    "selfies": "selfie", "hoodies": "hoodie", "buses": "bus", "lens": "lens", "canvas": "canvas", "always": "always",
}  # fmt: skip


CLOSING = r"[\"'”’»)\]*]*"
STOP = r"[\p{STerm}།༎…]"
OTHER_STOP = rf"[{STOP}--[.!?…]]"  # ends a sentence without a space behind it too
WITHOUT_STOPS = r"[\p{Thai}\p{Lao}]"
_ENDED = regex.compile(rf"(?V1)(?:{STOP}|{WITHOUT_STOPS}){CLOSING}$")
_FULL_STOPS = (
    (regex.compile(r"[\p{Devanagari}\p{Bengali}\p{Gurmukhi}\p{Oriya}]"), "।"),
    (regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]"), "。"),
    (regex.compile(r"\p{Khmer}"), "។"),
    (regex.compile(r"\p{Myanmar}"), "။"),
    (regex.compile(r"\p{Ethiopic}"), "።"),
    (regex.compile(r"\p{Armenian}"), "։"),
    (regex.compile(r"\p{Tibetan}"), "།"),
)
_LAST_LETTER = regex.compile(r"(?r)\p{L}")  # searched from the end


def is_ended(text: str) -> bool:
    """Whether the text ends as a sentence does."""
    if text[-1:] == "." and text[-2:-1].isalpha():  # nearly every sentence, and quicker
        return True
    return _ENDED.search(text.rstrip()) is not None


def full_stop(text: str) -> str:
    """The full stop that goes with the last letter of a text."""
    if text.isascii():
        return "."
    last = _LAST_LETTER.search(text)
    return next((stop for script, stop in _FULL_STOPS if last and script.match(last[0])), ".")


class WordLimits(Section):
    """Fewest and most words of a caption."""

    min: int = Field(default=1, ge=0, description="fewest words")
    max: int = Field(default=10_000, ge=1, description="most words")

    @model_validator(mode="after")
    def _ordered(self) -> WordLimits:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self
