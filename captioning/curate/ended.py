"""How sentences end: with a full stop or the like of any script, perhaps before a quotation mark or a bracket.

What ends a sentence is Unicode's property Sentence_Terminal (danda, Arabic, Ethiopic, Chinese stops and more), the
ellipsis and the Tibetan shad. Thai and Lao have no full stop: a text in them ends where it ends.
"""

from __future__ import annotations

import regex

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
