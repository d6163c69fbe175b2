"""Gadget `select`: keep the captions of an image that differ most from each other, and are good.

What decides is configured: the method, the similarity it goes by, and for MMR and DPP what makes a caption good; see
`captioning/curate/selection`, one file for each. Greedy max-min over lexical similarity is the default: it needs no
model, and nothing has to be weighed against anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given
from captioning.curate.measures.config import EmbeddingConfig
from captioning.curate.measures.measured import Measured, placed
from captioning.curate.selection import semantic
from captioning.curate.selection.dpp import DeterminantalPointProcess
from captioning.curate.selection.greedy import NOT_SELECTED, Criterion, greedy, nearest_selected
from captioning.curate.selection.max_min import MaxMin
from captioning.curate.selection.mmr import MaximalMarginalRelevance
from captioning.curate.selection.quality import quality
from captioning.curate.text_rules.words import WordLimits
from pipeline.config import Section

NO_LIMITS: Mapping[str, WordLimits] = MappingProxyType({})
REDUNDANT = "redundant"
OVER_LIMIT = "over_limit"


class SelectConfig(Section):
    """How many captions of an image are kept, how different they have to be, and what decides between them."""

    method: Literal["max_min", "mmr", "dpp"] = Field(
        default="max_min",
        description="greedy max-min, maximal marginal relevance, or a determinantal point process: how captions are "
        "selected",
    )
    similarity: Literal["lexical", "semantic"] = Field(
        default="lexical",
        description="similarity of words (n-gram Jaccard), or of meaning (cosine of sentence embeddings)",
    )
    embedding: EmbeddingConfig = EmbeddingConfig()
    quality: Literal["uniform", "length", "ground"] = Field(
        default="uniform",
        description="what makes a caption good, for mmr and dpp: nothing; a usual length for its granularity; or its "
        "image-text score among the image's captions",
    )
    mmr_lambda: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="for mmr, the weight of quality against diversity; 1: quality alone, 0: diversity alone",
    )
    max_captions: int = Field(default=12, ge=1, description="most captions of an image; coverage may need more")
    max_similarity: float = Field(
        default=0.8, ge=0, le=1, description="largest similarity of a selected caption to the nearest other one"
    )


class Select(Gadget):
    """Keeps at least one caption of every image that has an acceptable one, and notes how near it is to the others.

    `embed` gives sentence embeddings, and is needed where the similarity is semantic. `limits` are the words of each
    granularity, which the quality `length` goes by.
    """

    name = "select"
    settings = SelectConfig
    judges = "images"
    after = "duplicates"
    made_from = ("select", "coverage", "length")
    reads = ("perspective", "granularity")
    reasons: ClassVar[Mapping[str, str]] = {
        REDUNDANT: "too similar to the captions selected before it",
        OVER_LIMIT: "the image has enough captions without it",
    }

    def __init__(
        self,
        config: SelectConfig,
        *,
        coverage: bool,
        embed: Measured | None = None,
        limits: Mapping[str, WordLimits] = NO_LIMITS,
    ) -> None:
        if (embed is None) != (config.similarity == "lexical"):
            raise ValueError("an embedding model goes with semantic similarity, and only with it")
        self.config, self.coverage, self.embed, self.limits = config, coverage, embed, limits

    @classmethod
    def make(cls, given: Given) -> Self:
        return cls(
            given.settings["select"],
            coverage=given.settings["coverage"],
            embed=given.known.embed,
            limits=given.settings["length"].limits(),
        )

    def apply(self, draft: Draft) -> None:
        """Select within every image."""
        vectors = self._vectors(draft)
        for block in draft.blocks():
            open_BM = draft.is_open(block.rows_BM)
            similarity_BMM = block.similarity_BMM if vectors is None else semantic.similarity(vectors, block.rows_BM)
            rank_BM = greedy(
                self._criterion(draft, block.rows_BM, open_BM, similarity_BMM),
                similarity_BMM,
                open_BM,
                draft.slot_numbers[block.rows_BM] if self.coverage else None,
                max_captions=self.config.max_captions,
                max_similarity=self.config.max_similarity,
            )
            nearest_BM = nearest_selected(similarity_BMM, rank_BM)
            self._record(draft, block.rows_BM[open_BM], nearest_BM[open_BM], rank_BM[open_BM] != NOT_SELECTED)

    def _criterion(
        self, draft: Draft, rows_BM: np.ndarray, open_BM: np.ndarray, similarity_BMM: np.ndarray
    ) -> Criterion:
        if self.config.method == "max_min":
            return MaxMin(similarity_BMM, open_BM)
        quality_BM = quality(self.config.quality, draft, rows_BM, open_BM, self.limits)
        if self.config.method == "mmr":
            return MaximalMarginalRelevance(similarity_BMM, quality_BM, self.config.mmr_lambda)
        return DeterminantalPointProcess(similarity_BMM, quality_BM)

    def _vectors(self, draft: Draft) -> np.ndarray | None:
        """The embeddings of the open rows at their places, (rows, D), or None if words decide."""
        rows = list(draft.open_rows())
        return placed(self.embed, draft, rows)

    def _record(self, draft: Draft, rows: np.ndarray, nearest: np.ndarray, selected: np.ndarray) -> None:
        redundant = nearest > self.config.max_similarity
        scored = zip(rows.tolist(), nearest.tolist(), selected.tolist(), redundant.tolist(), strict=True)
        for row, near, stays, too_near in scored:
            draft.scores[row]["nearest"] = near
            if not stays:
                draft.drop(row, self, REDUNDANT if too_near else OVER_LIMIT)


GADGET = Select
