"""Gadget `clean`: take off what is not the caption: white space, quotation marks, boilerplate openers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from captioning.curate.config import CleanConfig
from captioning.curate.draft import Draft
from captioning.curate.phrases import Phrases
from captioning.curate.reasons import Reason

_CONTROL = re.compile(r"[\u0000-\u0008\u000e-\u001f\u007f\u200b\ufeff\ufffd]")
_EMPHASIS = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_BULLET = re.compile(r"^(?:[-*•#>]+|\d+[.)])\s+")
_HEAD = 200  # characters; no opener is as long
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "`": "`", "*": "*"}


class Clean:
    """Cleans the texts in place; drops nothing, what is left empty is for `reject`.

    `learnt` are the corpus' own openers, as `corpus.openers.Openers` merges them.
    """

    name = "clean"
    reads: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()

    def __init__(self, config: CleanConfig, phrases: Phrases, learnt: Iterable[str] = ()) -> None:
        self.config = config
        self.opener = phrases.opener(learnt)

    def apply(self, draft: Draft) -> None:
        """Clean every open row."""
        texts = draft.texts
        for row in draft.open_rows():
            texts[row] = self.clean(texts[row])

    def clean(self, text: str) -> str:
        """The caption inside a model's answer; cleaning twice changes nothing more."""
        if not (text.isascii() and text.isprintable()):
            text = unicodedata.normalize("NFC", _CONTROL.sub("", text))
        text = " ".join(text.split())
        while (shorter := self._peel(text)) != text:
            text = shorter
        return text

    def _peel(self, text: str) -> str:
        """Take off one layer of quotes, marks and openers."""
        if self.config.quotes:
            if "**" in text or "__" in text:
                text = _EMPHASIS.sub(r"\2", text)
            if not text[:1].isalpha():
                text = unquote(_BULLET.sub("", text))
        if self.config.openers and (match := self.opener.match(text[:_HEAD].lower())):
            rest = text[match.end() :]
            text = rest[:1].upper() + rest[1:] if text[:1].isupper() else rest
        return text


def unquote(text: str) -> str:
    """Strip one pair of quotation marks around the whole text; `"A" and "B"` keeps its own."""
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return text
    inside = text[1:-1]
    return text if text[0] in inside or text[-1] in inside else inside.strip()
