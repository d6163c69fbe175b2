"""Gadget `boilerplate`: drop sentences that say nearly the same about thousands of images.

What fits so many images says nothing about this one, and in a contrastive batch it is a false negative of all the
others. All of them go: there is no image for which it is the right one to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field

from captioning.curate.corpus.near_duplicates import NearDuplicates
from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given
from pipeline.config import Section

BOILERPLATE = "boilerplate"


class BoilerplateConfig(Section):
    """When a sentence counts as boilerplate of the corpus."""

    max_images: int = Field(default=1000, ge=1, description="most images that may share nearly the same sentence")
    similarity: float = Field(
        default=0.8,
        gt=0,
        lt=1,
        description="Jaccard index of word trigrams from which on most pairs count as nearly the same",
    )
    min_words: int = Field(
        default=6, ge=3, description="words from which on captions are judged; shorter ones may repeat"
    )

    def statistic(self) -> NearDuplicates:
        """What counts how many images share a sentence."""
        return NearDuplicates(self.max_images, self.similarity, self.min_words)


class Boilerplate(Gadget):
    """Drops the rows that lie in a crowded bucket; `crowded` is what `NearDuplicates` merges to: images by bucket."""

    name = "boilerplate"
    settings = BoilerplateConfig
    judges = "images"
    made_from = ("boilerplate",)
    reasons: ClassVar[Mapping[str, str]] = {
        BOILERPLATE: "nearly the same sentence stands at very many images",
    }

    def __init__(self, statistic: NearDuplicates, crowded: Mapping[int, int]) -> None:
        self.statistic, self.crowded = statistic, crowded

    @classmethod
    def make(cls, given: Given) -> Self:
        return cls(given.settings["boilerplate"].statistic(), given.known.crowded)

    def apply(self, draft: Draft) -> None:
        """Note how many images share the sentence, and drop it. Nearly every corpus has few such, if any."""
        if not self.crowded:
            return
        rows = self.statistic.rows(draft)
        buckets = self.statistic.buckets([draft.words(row) for row in rows])
        for row, own in zip(rows, buckets.tolist(), strict=True):
            images = max((self.crowded[bucket] for bucket in own if bucket in self.crowded), default=0)
            if images:
                draft.scores[row]["images_alike"] = float(images)
                draft.drop(row, self, BOILERPLATE)


GADGET = Boilerplate
