"""The things that captions of this corpus are about: the vocabulary by which mentions are compared.

Asked for nouns or for the main object, models name things and little else. A word that they list for several images is
taken for a thing; so the vocabulary fits the corpus, needs no tagger, and an invented word that occurs once is none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from captioning.curate.draft import Draft
from captioning.curate.words import singular, words
from pipeline.identity import digest

LISTS, NAMES = "nouns", "main_object"  # perspectives
SCHEMA = pa.schema([("word", pa.string()), ("images", pa.int64())])
_ITEM = re.compile(r"[,;:/|\n•.()]|\band\b|\bor\b|\d+\.")
# Where the first noun phrase of an English sentence ends.
_PHRASE_END = re.compile(
    r"[,;:.()]|\b(?:is|are|was|were|has|have|with|without|on|in|at|of|by|for|from|near|under|over|behind|beside|against"
    r"|between|among|around|to|that|which|who|and|or|while|standing|sitting|wearing|holding|being|seen|shown)\b"
)
# What lists and sentences name without naming a thing.
_NO_THINGS = frozenset({
    "image", "picture", "photo", "photograph", "scene", "view", "object", "subject", "focus", "element", "item",
    "thing", "noun", "list", "main", "background", "foreground", "side", "left", "right", "top", "bottom", "center",
    "centre", "middle", "front", "rear", "part", "kind", "type", "variety", "lot", "group", "number", "pair",
    "piece", "there", "it", "this", "that", "here", "none", "other", "another", "one", "something", "nothing",
    "everything",
})  # fmt: skip
# Nouns among the words that end as `running` does.
_ING_NOUNS = frozenset({
    "building", "painting", "ceiling", "ring", "king", "wing", "string", "clothing", "railing", "awning", "earring",
    "swing", "spring", "sling", "pudding", "wedding", "drawing", "morning", "evening", "landing", "crossing",
    "bedding", "icing", "topping", "frosting", "sibling", "duckling", "seedling", "dumpling", "herring", "dressing",
    "writing", "engraving", "carving", "etching", "lightning",
})  # fmt: skip


@dataclass(frozen=True)
class Objects:
    """Counts images by thing. The merged result are the things of at least `min_images` images, sorted."""

    min_images: int

    name = "objects"
    digest = digest([LISTS, NAMES, 1])

    def of_shard(self, draft: Draft) -> pa.Table:
        """How many images of the shard have each word in a list, or as a main object."""
        images: Counter[str] = Counter()
        perspectives = draft.columns["perspective"]
        for image in draft.images:
            found: set[str] = set()
            for row in draft.open_of(image):
                if perspectives[row] == LISTS:
                    found.update(listed(draft.texts[row]))
                elif perspectives[row] == NAMES and (name := main_object(draft.texts[row])):
                    found.add(name)
            images.update(found)
        return pa.table([list(images), list(images.values())], schema=SCHEMA).sort_by("word")

    def merge(self, tables: Iterator[pa.Table]) -> tuple[str, ...]:
        """The vocabulary; it grows with the language, not with the corpus."""
        images: Counter[str] = Counter()
        for table in tables:
            images.update(dict(zip(table["word"].to_pylist(), table["images"].to_pylist(), strict=True)))
        return tuple(sorted(word for word, count in images.items() if count >= self.min_images))


def listed(text: str) -> set[str]:
    """The things of a list: of `a tall oak tree, two boats and sky` these are tree, boat and sky."""
    return {thing for item in _ITEM.split(text.lower()) if (thing := _head(item))}


def main_object(text: str) -> str | None:
    """The thing that a sentence is about: the head of its first noun phrase that names one."""
    for phrase in _PHRASE_END.split(text.lower()):
        if thing := _head(phrase):
            return thing
    return None


def _head(phrase: str) -> str | None:
    """The last word of a noun phrase, in the singular; of `two dogs running` that is the dog."""
    spoken = words(phrase)
    while len(spoken) > 1 and spoken[-1].endswith("ing") and spoken[-1] not in _ING_NOUNS | _NO_THINGS:
        spoken = spoken[:-1]
    word = singular(spoken[-1]) if spoken else ""
    return word if len(word) > 2 and not word.isnumeric() and word not in _NO_THINGS else None
