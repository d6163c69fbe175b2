"""Retrieval on COCO with right answers that COCO lacks: CxC and ECCV Caption (`evaluation.coco_positives`).

Figures are those of the package's own functions: R@1, R-precision and mAP@R, where R is the number of right answers of
a query. Candidates are its 5,000 images and 25,000 captions. Right answers go by id; copies are not added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from evaluation import coco_positives, readouts, retrieval
from evaluation.benchmarks import Benchmark
from evaluation.coco_positives import MorePositives, Pairs
from evaluation.comparison import Row, compare
from evaluation.config import EvaluateConfig
from evaluation.contents import ALL_CAPTIONS, Queries
from evaluation.features import Needs
from evaluation.intervals import MeanEstimate
from evaluation.retrieval import BLOCK_SCORES, Relevance
from evaluation.task import SERVED, Card, Evaluation, Measurement, Subject, summed_up

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text_to_image", "image_to_text"
DIRECTIONS = (TEXT_TO_IMAGE, IMAGE_TO_TEXT)
RECALL, R_PRECISION, MAP_AT_R = "recall@1", "r_precision", "map_at_r"
ABSENT = "CxC and ECCV positives are not measured: the package eccv_caption is not installed (docs/evaluation.md)."


@dataclass(frozen=True)
class Asked:
    """Queries of one kind and direction: their places, their right answers, and R, how many they have of those."""

    query_Q: np.ndarray
    relevance: Relevance
    right_Q: np.ndarray  # those that are no candidate are counted too


@dataclass(frozen=True)
class Shown:
    """What is kept for the report: the mean R by direction and kind, or why nothing was measured."""

    why_not: str = ""
    relevant: Mapping[tuple[str, str], float] = field(default_factory=dict)


class RetrievalMorePositives:
    """What is nearest, where more is right than COCO knows. Queries are `cxc` and `eccv`; of the served vector."""

    name = "retrieval_more_positives"
    protocol = "eccv_caption"
    notes: Mapping[str, str] = {
        "CxC and ECCV": "Right answers of COCO's Karpathy test images by CrissCrossed Captions and by ECCV Caption, "
        "from the package eccv_caption; candidates are its 5,000 images and 25,000 captions. R is the number of right "
        "answers of a query: R-precision is their share of the first R candidates; mAP@R is the mean over these R "
        "places of the precision there, 0 where the candidate is wrong."
    }

    def asks(self, benchmark: Benchmark) -> bool:
        """Whether these are COCO's pictures and captions that the positives are of."""
        return _captions(benchmark) is not None and coco_positives.is_karpathys_test(benchmark.coco_ids)

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:  # noqa: ARG002
        """The captions."""
        captions = _captions(benchmark)
        return Needs(list(captions.texts) if captions else [])

    def measure(self, subject: Subject) -> tuple[list[Measurement], Shown]:
        """R@1, R-precision and mAP@R of both kinds of positives, both ways."""
        if not coco_positives.installed():
            return [], Shown(ABSENT)
        positives, captions = coco_positives.read(), _captions(subject.benchmark)
        assert captions is not None
        place = {caption: number for number, caption in enumerate(captions.coco_ids)}
        if lacking := sum(caption not in place for caption in positives.captions):
            return [], Shown(f"CxC and ECCV positives are not measured: {lacking:,} of their captions are not here.")
        texts = [captions.texts[place[caption]] for caption in positives.captions]
        text_TD = subject.features.texts(texts)
        image_ND = readouts.vectors(SERVED, subject.features.branch_NHD, subject.encoder.branches)[:, 0]
        found, relevant = list[Measurement](), dict[tuple[str, str], float]()
        for direction, kind, asked in _asked(positives, subject.benchmark.coco_ids):
            query_XD, candidate_CD = (text_TD, image_ND) if direction == TEXT_TO_IMAGE else (image_ND, text_TD)
            for metric, chance, outcome_Q in _figures(asked, query_XD[asked.query_Q], candidate_CD):
                estimate, name = MeanEstimate(outcome_Q), f"{direction}_{metric}"
                found.append(Measurement(self.name, self.protocol, SERVED, kind, name, chance, estimate))
            relevant[direction, kind] = float(asked.right_Q.mean())
        return found, Shown(relevant=relevant)

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """The mAP@R of both kinds, both ways."""
        return summed_up(evaluation, self.name, [f"{direction}_{MAP_AT_R}" for direction in DIRECTIONS])

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:  # noqa: ARG002
        """None: the page opens with COCO's own."""
        return []

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        """Both directions, a row for each kind; or why there is nothing."""
        shown: Shown = group[0].shown[self.name]
        rows = dict[str, list[Row]]()
        for (direction, kind), relevant in shown.relevant.items():
            key = (self.name, SERVED, kind, f"{direction}_{MAP_AT_R}")
            further = [f"{direction}_{metric}" for metric in (R_PRECISION, RECALL)]
            row = replace(compare(group, key, further, config, relevant), says="mAP@R")
            rows.setdefault(direction, []).append(row)
        return {"why_not": shown.why_not, "directions": rows}


def _captions(benchmark: Benchmark) -> Queries | None:
    """All captions, with COCO's ids."""
    return next((one for one in benchmark.queries if one.protocol == ALL_CAPTIONS and one.coco_ids), None)


def _asked(positives: MorePositives, image_ids: Sequence[int]) -> Iterator[tuple[str, str, Asked]]:
    """All queries with their right answers, by direction and kind."""
    for kind in positives.kinds:
        yield TEXT_TO_IMAGE, kind.name, _places(kind.text_to_image, positives.captions, image_ids)
        yield IMAGE_TO_TEXT, kind.name, _places(kind.image_to_text, image_ids, positives.captions)


def _places(pairs: Pairs, queries: Sequence[int], candidates: Sequence[int]) -> Asked:
    """Ids as places. A query none of whose right answers is a candidate is left out, as everywhere."""
    query_place = {number: place for place, number in enumerate(queries)}
    candidate_place = {number: place for place, number in enumerate(candidates)}
    found = {
        query_place[query]: (
            len(set(right)),
            sorted({candidate_place[one] for one in right if one in candidate_place}),
        )
        for query, right in pairs.items()
    }
    found = {query: asked for query, asked in sorted(found.items()) if asked[1]}
    counts = [len(right) for _, right in found.values()]
    relevance = Relevance(
        np.repeat(np.arange(len(found)), counts),
        np.array([place for _, right in found.values() for place in right], dtype=np.int64),
        len(found),
        len(candidates),
    )
    return Asked(np.array(list(found)), relevance, np.array([count for count, _ in found.values()]))


def _figures(asked: Asked, query_QD: Tensor, candidate_CD: Tensor) -> Iterator[tuple[str, float, np.ndarray]]:
    """Metric, chance and outcome of each query."""
    block = max(1, BLOCK_SCORES // len(candidate_CD))
    found = retrieval.ranks((part_qD @ candidate_CD.T for part_qD in query_QD.split(block)), asked.relevance)
    blind, right_Q = retrieval.random_ranks(asked.relevance), asked.right_Q
    yield RECALL, retrieval.chance(asked.relevance, 1), found.best().hits([1])[1]
    yield R_PRECISION, float(blind.precision(right_Q).mean()), found.precision(right_Q)
    yield MAP_AT_R, float(blind.average_precision(right_Q).mean()), found.average_precision(right_Q)


TASK = RetrievalMorePositives()
