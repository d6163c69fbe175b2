"""Gadget `ending`: repair captions that were cut off in the middle, by the token budget or in an imported table.

Where the engine says that it stopped at its limit (`finish_reason` is "length"), a text without an end was cut: a
caption of sentences goes back to its last whole sentence, a list to its last whole item, and what has neither is
dropped. Where the engine ended by itself, one sentence without a full stop gets it, unless the last word cannot end
anything ("a", "of"); after whole sentences a piece without one goes all the same. Where that is not known (imported
captions), words that seldom end a caption count as cut as well, and so does every text without a full stop where the
others of its perspective nearly all have one (`corpus/endings.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import regex
from pydantic import Field

from captioning.curate.corpus.endings import SENTENCES, Habits, Slot
from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given
from captioning.curate.text_rules.phrases import Phrases, load_phrases
from captioning.curate.text_rules.words import CLOSING, OTHER_STOP, WITHOUT_STOPS, full_stop, is_ended, words
from pipeline.config import Section

_TRAILS_OFF = regex.compile(r"(?:…|\.\.\.?)$")
_ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "St", "vs", r"e\.g", r"i\.e", "[A-Za-z]")
_NO_ABBREVIATION = "".join(rf"(?<!\b{short})" for short in _ABBREVIATIONS)
_END = regex.compile(rf"(?V1){_NO_ABBREVIATION}[.!?…]{CLOSING}(?=\s|$)|{OTHER_STOP}{CLOSING}|{WITHOUT_STOPS}(?=\s)")
_COMMAS = ",;،؛、，；፣"
NO_HABITS = Habits()
_LOOSE_END = f"{_COMMAS}:：-–—(&/"
CUT_OFF = "cut_off"


class EndingConfig(Section):
    """What `ending` does with a sentence that was cut off."""

    repair: bool = Field(
        default=True, description="whether a cut caption goes back to its last whole sentence; false: it is dropped"
    )


class Ending(Gadget):
    """Cuts back, closes or drops texts that stop in the middle; complete ones stay as they are.

    `habits` are how the captions of this corpus end.
    """

    name = "ending"
    settings = EndingConfig
    judges = "texts"
    after = "reject"
    made_from = ("ending", "phrases")
    reads = ("perspective", "granularity", "finish_reason")
    reasons: ClassVar[Mapping[str, str]] = {
        CUT_OFF: "it stops in the middle, and no whole sentence remains",
    }

    def __init__(self, config: EndingConfig, phrases: Phrases, habits: Habits = NO_HABITS) -> None:
        self.config, self.habits = config, habits
        self._never_last = phrases.dangling
        self._seldom_last = phrases.hanging

    @classmethod
    def make(cls, given: Given) -> Self:
        return cls(given.settings["ending"], load_phrases(given.settings["phrases"]), given.known.habits)

    def apply(self, draft: Draft) -> None:
        """Repair or drop every open row that was cut off."""
        finish = draft.columns["finish_reason"]
        for row in draft.open_rows():
            text = draft.texts[row]
            if text[-1:] == "." and text[-5:-1].isalpha():  # nearly every sentence, and quicker
                continue
            perspective, granularity = draft.slot(row)
            repaired = self.repair(text, granularity, finish[row], perspective)
            if repaired is None:
                draft.drop(row, self, CUT_OFF)
            elif repaired != text:
                draft.texts[row] = repaired

    def repair(self, text: str, granularity: str, finish: str | None, perspective: str = "") -> str | None:
        """The text with a whole last sentence (phrase, list item), or None if there is none to keep."""
        last = words(text[-60:])[-1:]
        slot = (perspective, granularity)
        early = self._stops_early(text, last, finish, slot)
        if self._is_whole(text, granularity, finish, early):
            return text
        if finish is None and not early and not is_ended(text):
            early = self.habits.is_cut(slot, last[0])
        return self._cut_back(text, granularity, finish, early) if self.config.repair else None

    def _is_whole(self, text: str, granularity: str, finish: str | None, early: bool) -> bool:
        if is_ended(text):
            trails_off = early and _TRAILS_OFF.search(text)
            at_limit_in_abbreviation = finish == "length" and _whole_sentences(text) != text
            return not trails_off and not at_limit_in_abbreviation
        return granularity not in SENTENCES and finish != "length" and not early

    def _cut_back(self, text: str, granularity: str, finish: str | None, early: bool) -> str | None:
        if granularity == "word":
            return text[: max(map(text.rfind, _COMMAS)) + 1][:-1].rstrip() or None
        if granularity not in SENTENCES:
            return None
        whole = _whole_sentences(text)
        if whole != text and words(whole):
            return whole
        return None if finish == "length" or early else text + full_stop(text)

    def _stops_early(self, text: str, last: tuple[str, ...], finish: str | None, slot: Slot) -> bool:
        """Whether the last word, or what stands after it, is none to stop at."""
        if not last or text[-1] in _LOOSE_END or last[0] in self._never_last:
            return True
        known = finish in ("stop", "length")
        return not known and last[0] in self._seldom_last and last[0] not in self.habits.usual.get(slot, ())


def _whole_sentences(text: str) -> str:
    """The text up to its last whole sentence; empty if there is none."""
    end = 0
    for match in _END.finditer(text):
        end = match.end()
    return text[:end]


GADGET = Ending
