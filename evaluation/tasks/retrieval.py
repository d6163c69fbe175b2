"""Retrieval: every readout on the queries of every perspective, both ways (`evaluation.both_ways`, `.rerank`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import branch_weights, branches, readouts, rerank, retrieval, specialisation
from evaluation.benchmarks import Benchmark
from evaluation.both_ways import both_ways
from evaluation.comparison import Figure, Row, compare, figure_of
from evaluation.config import EvaluateConfig
from evaluation.contents import Queries
from evaluation.costs import Cost, costs
from evaluation.features import Needs
from evaluation.intervals import MeanEstimate, MedianEstimate
from evaluation.ranks import Ranks
from evaluation.task import SERVED, Card, Estimate, Evaluation, Measurement, Subject, summed_up
from pipeline.thumbnails import thumbnail

NAME = "retrieval"
TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text_to_image", "image_to_text"
DIRECTIONS = (TEXT_TO_IMAGE, IMAGE_TO_TEXT)
MAP, MEDIAN_RANK = "map", "median_rank"
RANKED = (MAP, MEDIAN_RANK)
DRAWN, EXAMPLE_DEPTH = 64, 6  # queries per perspective that pictured ones are chosen from, and pictures per query


@dataclass(frozen=True)
class Example:
    """A query and the images that the served vector ranks first for it."""

    perspective: str
    text: str
    relevant: int  # number of images the text is true for
    wanted: int  # one of these
    images: tuple[int, ...]
    right: tuple[bool, ...]

    @property
    def is_hit(self) -> bool:
        """Whether a right image comes first."""
        return self.right[0]


@dataclass(frozen=True)
class Shown:
    """What is kept for the report."""

    examples: tuple[Example, ...]
    costs: tuple[Cost, ...]


class Retrieval:
    """What is nearest, text to image and image to text. What it keeps: a few examples, and what readouts cost."""

    name = NAME
    notes: Mapping[str, str] = {
        "Retrieval": "All texts of a perspective, one query each; recall@k is the share of queries with at least one "
        "right answer among the first k. Without repeated texts this is the usual protocol of multi-caption sets.",
        "Ranks": "Median rank is of each query's first right answer; mAP is the mean over queries of the average "
        "precision over all candidates. Candidates of equal score have no order: every figure is the mean over all "
        "orders.",
        "Specialisation": "Over perspectives with a branch of the same name, by recall@1: the share of them whose own "
        "branch is the best of all (branches that tie share it), and how far it lies above the mean of all branches. "
        "Queries are drawn perspective by perspective.",
        "Chance at k": "For r right answers among N candidates, 1 − C(N−r, k) / C(N, k), mean over queries.",
    }

    def asks(self, benchmark: Benchmark) -> bool:
        """Whether there are queries."""
        return bool(benchmark.queries)

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:
        """All queries, and patches where a second score puts candidates in order."""
        texts = [text for queries in benchmark.queries for text in queries.texts]
        return Needs(texts, patches=readouts.RERANK in config.readouts)

    def measure(self, subject: Subject) -> tuple[list[Measurement], Shown]:
        """Recall@k, median rank and mAP of each perspective and direction, and how far branches are specialists."""
        encoder, names = subject.encoder, subject.config.readouts
        found = [
            measurement
            for readout in readouts.expand(names, encoder.branches, encoder.second_score, fitted=True)
            for queries in subject.benchmark.queries
            for measurement in self._figures(readout, queries, subject)
        ]
        found += specialisation.measure(found, encoder.branches, DIRECTIONS)
        return found, Shown(tuple(_examples(subject)), tuple(costs(subject)))

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """Recall@1 of each perspective, both ways, and the perspectives whose own branch is best."""
        found: dict[str, Any] = summed_up(evaluation, self.name, [f"{direction}_recall@1" for direction in DIRECTIONS])
        if (by_branch := branches.matrix(evaluation, TEXT_TO_IMAGE)) is not None:
            found |= {"own_branch_wins": list(by_branch.own_wins()), "own_branch_ties": list(by_branch.own_ties())}
        return found

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:
        """The first perspective both ways, and how many branches are best at their own."""
        found = [
            rows[0].card(f"{direction.replace('_', ' ')} recall@1, {rows[0].words}", group)
            for direction, rows in self._rows(group, config).items()
        ]
        for evaluation in group:
            if (view := _matrix(evaluation, TEXT_TO_IMAGE)) and view["named"]:
                tied = len(view["tied"])
                more = f"; {tied} more tie{'s' if tied == 1 else ''} with another" if tied else ""
                says = "perspectives answered best by their own branch"
                beside = f"{evaluation.encoder.run}, text to image{more}"
                return [*found, Card(str(len(view["own"])), f"of {view['named']}", says, beside)]
        return found

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        """Both directions, a matrix of branches by perspectives, examples."""
        return {
            "directions": self._rows(group, config),
            "further": [*(f"R@{k}" for k in config.ks if k > 1), "mAP", "median rank"],
            "matrices": [
                (evaluation.encoder.run, direction, view)
                for evaluation in group
                for direction in DIRECTIONS
                if (view := _matrix(evaluation, direction))
            ],
            "costs": _quality_and_cost(group, config),
            "drawn": DRAWN,
            "examples": _pictured(group),
        }

    def _figures(self, readout: str, queries: Queries, subject: Subject) -> Iterator[Measurement]:
        relevance = _relevance(queries, len(subject.features.branch_NHD))
        by_text, by_image = _ranks(readout, queries, relevance, subject)
        for direction, ranks, asked in (
            (TEXT_TO_IMAGE, by_text, relevance),
            (IMAGE_TO_TEXT, by_image, relevance.swapped()),
        ):
            best, blind = ranks.best(), retrieval.random_ranks(asked)
            found: list[tuple[str, float, Estimate]] = [
                (f"recall@{k}", retrieval.chance(asked, k), MeanEstimate(hit_Q))
                for k, hit_Q in best.hits(subject.config.ks).items()
            ]
            median = MedianEstimate(best.rank_Q())
            found += [
                (MAP, float(blind.average_precision().mean()), MeanEstimate(ranks.average_precision())),
                (MEDIAN_RANK, MedianEstimate(blind.best().rank_Q()).value, median),
            ]
            for metric, chance, estimate in found:
                name = f"{direction}_{metric}"
                yield Measurement(self.name, queries.protocol, readout, queries.perspective, name, chance, estimate)

    def _rows(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, list[Row]]:
        """Text to image, then image to text; a row per perspective."""
        found: dict[str, list[Row]] = {}
        for direction in DIRECTIONS:
            further = [f"{direction}_{name}" for name in (*(f"recall@{k}" for k in config.ks if k > 1), *RANKED)]
            for queries in group[0].benchmark.queries:
                key = (self.name, SERVED, queries.perspective, f"{direction}_recall@1")
                pairs = queries.pair_text_P if direction == TEXT_TO_IMAGE else queries.pair_image_P
                relevant = len(pairs) / len(np.unique(pairs))
                found.setdefault(direction, []).append(compare(group, key, further, config, relevant))
        return found


def _relevance(queries: Queries, images: int) -> retrieval.Relevance:
    return retrieval.Relevance(queries.pair_text_P, queries.pair_image_P, len(queries.texts), images)


def _ranks(readout: str, queries: Queries, relevance: retrieval.Relevance, subject: Subject) -> tuple[Ranks, Ranks]:
    """Where the right images of each text stand, and the right texts of each image."""
    found, encoder = subject.features, subject.encoder
    text_TD = found.texts(queries.texts)
    if readout == readouts.WEIGHTED:
        return branch_weights.cross_fitted(found.branch_NHD, text_TD, relevance, subject.config.seed)
    if readout != readouts.RERANK:
        vector_NGD = readouts.vectors(readout, found.branch_NHD, encoder.branches)
        return both_ways(vector_NGD, text_TD, relevance)
    assert found.patch_NPD is not None
    served_ND = readouts.vectors(SERVED, found.branch_NHD, encoder.branches)[:, 0]
    second, depth = encoder.model.conditioned_cosines, max(*subject.config.ks, subject.config.rerank_depth)
    return (
        rerank.stand_images(second, served_ND, found.patch_NPD, text_TD, depth, relevance),
        rerank.stand_texts(second, served_ND, found.patch_NPD, text_TD, depth, relevance.swapped()),
    )


def _examples(subject: Subject) -> Iterator[Example]:
    """What the served vector finds for queries of each perspective, drawn by seed and not by looks."""
    vector_NGD = readouts.vectors(SERVED, subject.features.branch_NHD, subject.encoder.branches)
    for queries in subject.benchmark.queries:
        rng = np.random.default_rng(subject.config.seed)
        drawn = rng.choice(len(queries.texts), size=min(DRAWN, len(queries.texts)), replace=False)
        text_TD = subject.features.texts([queries.texts[index] for index in drawn])
        for index, ranked_K in zip(drawn, retrieval.rank_images(vector_NGD, text_TD, EXAMPLE_DEPTH), strict=True):
            relevant = queries.pair_image_P[queries.pair_text_P == index].tolist()
            images = tuple(int(image) for image in ranked_K)
            right = tuple(image in relevant for image in images)
            yield Example(queries.perspective, queries.texts[index], len(relevant), relevant[0], images, right)


def _matrix(evaluation: Evaluation, direction: str) -> dict[str, Any] | None:
    """Branch × perspective, with each branch's deviation from the branches' mean on that perspective."""
    found = branches.matrix(evaluation, direction)
    if found is None:
        return None
    single_HP = found.value_RP[: found.branches]
    deviation_HP = single_HP - single_HP.mean(axis=0)
    return {
        "matrix": found,
        "deviation": deviation_HP.tolist(),
        "largest": float(np.abs(deviation_HP).max()),
        "best": found.best_HP().tolist(),
        "named": sum(name in found.names for name in found.perspectives),
        "own": found.own_wins(),
        "tied": found.own_ties(),
    }


def _quality_and_cost(group: Sequence[Evaluation], config: EvaluateConfig) -> list[dict[str, Any]]:
    """A row for each readout of each run: recall@1 as a mean over perspectives, beside its cost; places for a plot."""
    rows = []
    for place, evaluation in enumerate(group):
        for cost in evaluation.shown[NAME].costs:
            recall = {direction: _mean_recall(evaluation, cost.readout, direction, config) for direction in DIRECTIONS}
            rows.append({"place": place, "run": evaluation.encoder.run, "cost": cost, "recall": recall})
    sizes = sorted({row["cost"].bytes for row in rows})
    span = max(float(np.log2(sizes[-1] / sizes[0])), 1.0)
    for size in sizes:  # those of one size stand beside each other, the best first
        beside = [row for row in rows if row["cost"].bytes == size]
        for step, row in enumerate(sorted(beside, key=lambda row: -row["recall"][TEXT_TO_IMAGE].value)):
            row |= {"across": float(np.log2(size / sizes[0])) / span, "step": step}
    return rows


def _mean_recall(evaluation: Evaluation, readout: str, direction: str, config: EvaluateConfig) -> Figure:
    """Recall@1 of a readout, the mean over perspectives, whose queries are drawn each by themselves."""
    asked = [
        figure
        for figure in evaluation.measurements
        if (figure.task, figure.readout, figure.metric) == (NAME, readout, f"{direction}_recall@1")
    ]
    drawn_S = np.mean([figure.replicates(config) for figure in asked], axis=0)
    return figure_of(float(np.mean([figure.value for figure in asked])), drawn_S)


def _pictured(group: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Of each perspective a query that the first run hits and one that it misses, with what every run finds."""
    benchmark = group[0].benchmark
    pictures: dict[int, str] = {}
    found = []
    for asked in _hits_and_misses(list(zip(*(evaluation.shown[NAME].examples for evaluation in group), strict=True))):
        answers = [
            {"run": evaluation.encoder.run, "pictures": _pictures(benchmark, example.images, example.right, pictures)}
            for evaluation, example in zip(group, asked, strict=True)
        ]
        wanted = [] if asked[0].is_hit else _pictures(benchmark, [asked[0].wanted], [True], pictures)
        found.append({"example": asked[0], "answers": answers, "wanted": wanted})
    return found


def _hits_and_misses(asked: Sequence[tuple[Example, ...]]) -> Iterator[tuple[Example, ...]]:
    """The first hit and the first miss of each perspective; examples of one query by all runs stand together."""
    for perspective in dict.fromkeys(examples[0].perspective for examples in asked):
        own = [examples for examples in asked if examples[0].perspective == perspective]
        for is_hit in (True, False):
            yield from [examples for examples in own if examples[0].is_hit == is_hit][:1]


def _pictures(
    benchmark: Benchmark, images: Sequence[int], right: Sequence[bool], made: dict[int, str]
) -> list[Mapping[str, Any]]:
    for image in images:
        if image not in made:
            made[image] = thumbnail(benchmark.image(image).read())
    return [
        {"source": made[image], "file": benchmark.files[image], "right": hit}
        for image, hit in zip(images, right, strict=True)
    ]


TASK = Retrieval()
