"""Gadget `ending`: repair captions that the token budget cut off in the middle.

A caption of sentences is cut when the engine stopped at its limit, or when it ends without a full stop. It is
cut back to its last whole sentence. If there is none, and the engine ended by itself on a word that can end a
sentence, only the full stop is missing and is put there; everything else is dropped.
"""

from __future__ import annotations

import re

from captioning.curate.config import EndingConfig
from captioning.curate.draft import Draft
from captioning.curate.phrases import Phrases
from captioning.curate.reasons import Reason
from captioning.curate.words import words

_CLOSING = r"[\"'”’»)\]]*"
_ENDED = re.compile(rf"[.!?…。！？]{_CLOSING}$")
_NO_ABBREVIATION = r"(?<!\b[A-Za-z])(?<!\bMr)(?<!\bDr)(?<!\bSt)(?<!\bMrs)(?<!\bvs)"
_LAST_END = re.compile(rf".*(?:{_NO_ABBREVIATION}[.!?…]{_CLOSING}(?=\s)|[。！？])", re.DOTALL)


class Ending:
    """Cuts back, closes or drops texts that stop in the middle; complete ones stay as they are."""

    name = "ending"
    reads = ("granularity", "finish_reason")
    reasons = (Reason.CUT_OFF,)

    def __init__(self, config: EndingConfig, phrases: Phrases) -> None:
        self.config, self.phrases = config, phrases

    def apply(self, draft: Draft) -> None:
        """Repair or drop every open row that was cut off."""
        granularity, finish = draft.columns["granularity"], draft.columns["finish_reason"]
        for row in draft.open_rows():
            repaired = self.repair(draft.texts[row], granularity[row], at_limit=finish[row] == "length")
            if repaired is None:
                draft.drop(row, self, Reason.CUT_OFF)
            else:
                draft.texts[row] = repaired

    def repair(self, text: str, granularity: str, *, at_limit: bool) -> str | None:
        """The text with a whole last sentence (phrase, list item), or None if there is none to keep."""
        if granularity in ("sentence", "paragraph"):
            if _ENDED.search(text):
                return text
            whole = _LAST_END.match(text)
            return self._if_allowed(whole[0] if whole else None if at_limit else self._close(text))
        if not at_limit or _ENDED.search(text):
            return text
        items, comma, _ = text.rpartition(",")
        return self._if_allowed(items.rstrip() if comma and granularity == "word" else None)

    def _if_allowed(self, repaired: str | None) -> str | None:
        return repaired if self.config.repair else None

    def _close(self, text: str) -> str | None:
        last = words(text)[-1:]
        if not last or last[0] in self.phrases.dangling or text[-1] in ",;:-–—(":
            return None
        return f"{text}."
