"""Gadget `clean`: take off what is not the caption: markup, white space, quotation marks, boilerplate openers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import regex

from captioning.curate.config import CleanConfig
from captioning.curate.draft import Draft
from captioning.curate.reasons import Reason
from captioning.curate.text_rules.markup.unwrap import bare
from captioning.curate.text_rules.phrases import Phrases
from captioning.curate.text_rules.words import with_few_marks

# The space of no width goes too, but where it parts words of a script without spaces.
_CONTROL = regex.compile(
    r"(?V1)[\u0000-\u0008\u000e-\u001f\u007f\u00ad\u2060\ufeff\ufffd\ud800-\udfff]"
    r"|(?<!\p{LB=SA})\u200b|\u200b(?!\p{LB=SA})"
)
_BULLET = re.compile(r"(?:[-*•#>]+|\d+[.)])\s+")
_HEAD = 200  # characters; no opener is as long
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "`": "`", "*": "*"}
LAYERS = 4  # of markup around quotation marks around markup; what has more is for `reject`


class Clean:
    """Cleans the texts in place; drops nothing, what is left empty is for `reject`.

    `learnt` are the corpus' own openers, as `corpus.openers.Openers` merges them.
    """

    name = "clean"
    reads = ("granularity",)
    reasons: tuple[Reason, ...] = ()

    def __init__(self, config: CleanConfig, phrases: Phrases, learnt: Iterable[str] = ()) -> None:
        self.config = config
        self.opener = phrases.opener(learnt)

    def apply(self, draft: Draft) -> None:
        """Clean every open row."""
        texts, granularity = draft.texts, draft.columns["granularity"]
        for row in draft.open_rows():
            texts[row] = self.clean(texts[row], granularity[row])

    def clean(self, text: str, granularity: str = "sentence") -> str:
        """The caption inside a model's answer; cleaning twice changes nothing more."""
        for _ in range(LAYERS):
            left = bare(text, granularity) if self.config.markup else text
            if not (left.isascii() and left.isprintable()):
                left = unicodedata.normalize("NFC", with_few_marks(_CONTROL.sub("", left)))
            left = self._peeled(" ".join(left.split()))
            if left == text:
                break
            text = left
        return text

    def _peeled(self, text: str) -> str:
        """The text without bullets, quotation marks and openers, however many; it is cut once, at the end."""
        start, stop, capital = 0, len(text), False
        while start < stop:
            before = (start, stop)
            if self.config.quotes and not text[start].isalpha():
                if bullet := _BULLET.match(text, start, stop):
                    start = bullet.end()
                start, stop = _unquoted(text, start, stop)
            if self.config.openers and (opener := self.opener.match(text[start : min(start + _HEAD, stop)].lower())):
                capital = text[start].isupper() or (capital and start == before[0])
                start += opener.end()
            elif (start, stop) == before:
                break
            else:
                capital = False
        left = text[start:stop]
        return left[:1].upper() + left[1:] if capital else left


def _unquoted(text: str, start: int, stop: int) -> tuple[int, int]:
    """The place inside one pair of quotation marks around a text; `"A" and "B"` keeps its own."""
    if stop - start < 2 or _QUOTES.get(text[start]) != text[stop - 1]:
        return start, stop
    if any(text.find(mark, start + 1, stop - 1) >= 0 for mark in (text[start], text[stop - 1])):
        return start, stop
    start, stop = start + 1, stop - 1
    while start < stop and text[start].isspace():
        start += 1
    while start < stop and text[stop - 1].isspace():
        stop -= 1
    return start, stop
