"""Gadget `off_topic`: drop captions that name what their perspective was to leave out.

A background caption that names the main object is a caption of something else, and trains the wrong branch. What
the main object is, the image itself says: the head nouns of its own `main_object` captions. Number is folded one way:
where the main object is "two dogs", a dog is one of them, but where it is "a star", the "many stars" of a night sky
are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, names_perspectives
from captioning.curate.text_rules.head_nouns import head_nouns
from captioning.curate.text_rules.words import singular
from pipeline.config import Section

OFF_TOPIC = "off_topic"


class OffTopicConfig(Section):
    """Which perspectives must not name the main object; empty: all may."""

    perspectives: tuple[str, ...] = names_perspectives(
        ("background", "style"), "perspectives whose captions are dropped if they name the main object"
    )
    subject: str = names_perspectives("main_object", "the perspective that names the main object")


class OffTopic(Gadget):
    """Drops the rows of the configured perspectives that name the image's main object."""

    name = "off_topic"
    settings = OffTopicConfig
    judges = "texts"
    after = "unsafe"
    made_from = ("off_topic",)
    reads = ("perspective",)
    reasons: ClassVar[Mapping[str, str]] = {
        OFF_TOPIC: "it names the main object, which its perspective was to leave out",
    }

    def __init__(self, config: OffTopicConfig) -> None:
        self.perspectives, self.subject = frozenset(config.perspectives), config.subject

    def apply(self, draft: Draft) -> None:
        """Go over every image that tells its main object."""
        if not self.perspectives:
            return
        perspective = draft.columns["perspective"]
        for image in draft.images:
            subjects = (row for row in draft.kept_of(image) if perspective[row] == self.subject)
            heads = {head for row in subjects for head in head_nouns(draft.texts[row])}
            if not heads:
                continue
            names = heads.union(map(singular, heads))  # a plural is named by its singular, not the other way round
            for row in draft.open_of(image):
                if perspective[row] in self.perspectives and not names.isdisjoint(draft.words(row)):
                    draft.drop(row, self, OFF_TOPIC)


GADGET = OffTopic
