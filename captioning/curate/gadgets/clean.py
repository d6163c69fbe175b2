"""Gadget `clean`: take off what is not the caption: markup, white space, quotation marks, boilerplate openers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Self

import regex
from pydantic import Field

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given
from captioning.curate.text_rules.markup.unwrap import bare
from captioning.curate.text_rules.phrases import Phrases, load_phrases
from captioning.curate.text_rules.words import with_few_marks
from pipeline.config import Section

# The space of no width goes too, but where it parts words of a script without spaces.
_CONTROL = regex.compile(
    r"(?V1)[\u0000-\u0008\u000e-\u001f\u007f\u00ad\u2060\ufeff\ufffd\ud800-\udfff]"
    r"|(?<!\p{LB=SA})\u200b|\u200b(?!\p{LB=SA})"
)
_BULLET = re.compile(r"(?:[-*•#>]+|\d+[.)])\s+")
_HEAD = 200  # characters; no opener is as long
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "`": "`", "*": "*"}
LAYERS = 4  # of markup around quotation marks around markup; what has more is for `reject`


class CleanConfig(Section):
    """What `clean` takes off a text."""

    markup: bool = Field(
        default=True, description="strip what models and templates leave: tokens, tags, code, JSON, boxes, bullets"
    )
    openers: bool = Field(default=True, description="strip boilerplate such as 'The image shows'")
    quotes: bool = Field(default=True, description="strip quotation marks around the whole text")
    learn: bool = Field(default=True, description="learn openers from the captions, beside those that are listed")
    learn_share: float = Field(
        default=0.002,
        gt=0,
        le=1,
        description="share of all images that must have a caption that begins so, for an opener to be learnt",
    )


class Clean(Gadget):
    """Cleans the texts in place; drops nothing, what is left empty is for `reject`.

    `learnt` are the corpus' own openers, as `corpus.openers.Openers` merges them.
    """

    name = "clean"
    settings = CleanConfig
    judges = "texts"
    origins = ("model", "alt_text")
    made_from = ("clean", "phrases")
    reads = ("granularity",)

    def __init__(self, config: CleanConfig, phrases: Phrases, learnt: Iterable[str] = ()) -> None:
        self.config = config
        self.opener = phrases.opener(learnt)

    @classmethod
    def make(cls, given: Given) -> Self:
        return cls(given.settings["clean"], load_phrases(given.settings["phrases"]), given.known.openers)

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


GADGET = Clean
