"""The things that captions of this corpus are about: the vocabulary by which mentions are compared.

Asked for nouns or for the main object, models name things and little else. A word that they list for several images is
taken for a thing; so the vocabulary fits the corpus, needs no tagger, and an invented word that occurs once is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from captioning.curate.draft import Draft
from captioning.curate.text_rules.head_nouns import head_nouns
from captioning.curate.text_rules.words import singular
from pipeline.identity import digest

LISTS, NAMES = "nouns", "main_object"  # perspectives
SCHEMA = pa.schema([("word", pa.string()), ("images", pa.int64())])
_ITEMS = str.maketrans(dict.fromkeys(",;:/|\n•.()", ","))


@dataclass(frozen=True)
class Objects:
    """Counts images by thing. The merged result are the things of at least `min_images` images, sorted."""

    min_images: int

    name = "objects"
    digest = digest([LISTS, NAMES, 2])

    def of_shard(self, draft: Draft) -> pa.Table:
        """How many images of the shard have each word in a list, or as a main object."""
        images: Counter[str] = Counter()
        perspectives = draft.columns["perspective"]
        for image in draft.images:
            things: set[str] = set()
            for row in draft.open_of(image):
                if perspectives[row] == LISTS:
                    things.update(listed(draft.texts[row]))
                elif perspectives[row] == NAMES:
                    things.update(map(singular, head_nouns(draft.texts[row])))
            images.update(things)
        return pa.table([list(images), list(images.values())], schema=SCHEMA).sort_by("word")

    def merge(self, tables: Iterator[pa.Table]) -> tuple[str, ...]:
        """The vocabulary; it grows with the language, not with the corpus."""
        images: Counter[str] = Counter()
        for table in tables:
            images.update(dict(zip(table["word"].to_pylist(), table["images"].to_pylist(), strict=True)))
        return tuple(sorted(word for word, count in images.items() if count >= self.min_images))


def listed(text: str) -> set[str]:
    """The things of a list, in the singular: of `a tall oak tree, two boats and sky` these are tree, boat and sky."""
    items = text.translate(_ITEMS).replace(" and ", ",").replace(" or ", ",").split(",")
    return {singular(head) for item in items for head in head_nouns(item)}
