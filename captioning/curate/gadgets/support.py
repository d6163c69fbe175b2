"""Gadget `support`: drop captions about things that no other caption of the image knows of.

Several captions of one picture confirm each other: what one invents, the others do not mention. This needs no
model. It cannot tell a thing that only one caption noticed from one that is not there, so a caption goes only if most
of its things are unsupported; captions of style or mood, whose light and shadows nobody else names, are not judged.
Off unless `curate.support.enabled`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar, Self

from pydantic import Field

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given, names_perspectives
from captioning.curate.text_rules.words import singular, words
from pipeline.config import Section

SCORE = "unsupported"
UNSUPPORTED = "unsupported"


class SupportConfig(Section):
    """Which captions name things that no other caption of the image knows of."""

    enabled: bool = Field(False, description="whether such captions are dropped")
    max_unsupported: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="largest share of a caption's things that no other caption of the image names",
    )
    not_judged: tuple[str, ...] = names_perspectives(
        ("style", "mood", "purpose", "text"), "perspectives that are not judged, as they name what others do not"
    )
    min_others: int = Field(
        default=3, ge=1, description="other captions that an image must have for its captions to be judged"
    )
    min_images: int = Field(default=3, ge=1, description="images that must list a word for it to count as a thing")


class Support(Gadget):
    """Notes the share of a caption's things that nothing else of the image mentions, and drops above a threshold.

    `objects` is the vocabulary of things (`corpus.objects`), `alt_texts` gives alt texts by the image's key: they
    support, and are not judged. If all captions of an image disagree, the best supported one stays.
    """

    name = "support"
    settings = SupportConfig
    judges = "images"
    after = "ground"
    made_from = ("support",)
    reads = ("perspective",)
    reasons: ClassVar[Mapping[str, str]] = {
        UNSUPPORTED: "it names things that no other caption of the image names",
    }

    def __init__(self, config: SupportConfig, objects: Iterable[str], alt_texts: Mapping[str, str]) -> None:
        self.config, self.objects, self.alt_texts = config, frozenset(objects), alt_texts

    @classmethod
    def make(cls, given: Given) -> Self | None:
        config = given.settings["support"]
        return cls(config, given.known.objects, given.known.alt_texts) if config.enabled else None

    def apply(self, draft: Draft) -> None:
        """Compare the captions of every image. All are judged before any is dropped, so order does not matter."""
        for image in draft.images:
            rows = draft.kept_of(image)
            if len(rows) > self.config.min_others:
                alt_text = self.alt_texts.get(draft.columns["key"][image.start]) or ""
                self._judge(draft, rows, set(draft.open_of(image)), self.mentions(words(alt_text)))

    def _judge(self, draft: Draft, rows: list[int], judged: set[int], alt_text: frozenset[str]) -> None:
        mentions = {row: self.mentions(draft.words(row)) for row in rows}
        captions = Counter(thing for own in mentions.values() for thing in own)
        perspectives = draft.columns["perspective"]
        for row, own in mentions.items():
            if own and row in judged and perspectives[row] not in self.config.not_judged:
                alone = sum(captions[thing] == 1 and thing not in alt_text for thing in own)
                draft.scores[row][SCORE] = alone / len(own)
        shares = {row: draft.scores[row].get(SCORE, 0.0) for row in rows}
        wrong = [row for row, share in shares.items() if share > self.config.max_unsupported]
        spared = min(rows, key=lambda row: (shares[row], row)) if len(wrong) == len(rows) else None
        for row in wrong:
            if row != spared:
                draft.drop(row, self, UNSUPPORTED)

    def mentions(self, spoken: Iterable[str]) -> frozenset[str]:
        """The things among these words, in the singular."""
        return frozenset(thing for word in spoken if (thing := singular(word)) in self.objects)


GADGET = Support
