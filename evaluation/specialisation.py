"""How far branches have become specialists, in two figures with intervals.

They are of perspectives with a branch of their own, and of every branch's recall@1 on their queries. `own_branch_best`
is the share of perspectives whose own branch is the best of all (branches that tie share it), `own_branch_margin` how
far the own branch lies above the mean of all branches. Branches that are all alike are at chance: 1 / branches, and 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import intervals
from evaluation.comparison import percent
from evaluation.intervals import MeanEstimate
from evaluation.readouts import PREFIX
from evaluation.task import Measurement
from pipeline.summary import words

READOUT, QUERY = "branches", "own_perspective"  # what stands in the results
BEST, MARGIN = "own_branch_best", "own_branch_margin"


@dataclass(frozen=True)
class Own:
    """A perspective with a branch of its own: what each branch finds of its queries, and which branch that is."""

    outcome_QH: np.ndarray
    own: int


@dataclass(frozen=True)
class Specialisation:
    """One of the two figures; its units are the queries of all perspectives, drawn perspective by perspective."""

    metric: str
    perspectives: tuple[Own, ...]

    @property
    def n(self) -> int:
        """Number of queries."""
        return sum(len(one.outcome_QH) for one in self.perspectives)

    @property
    def value(self) -> float:
        """The figure."""
        return float(self._figure([one.outcome_QH.mean(axis=0, keepdims=True) for one in self.perspectives])[0])

    def replicates(self, *, samples: int, seed: int) -> np.ndarray:
        """The figure on each resample, (samples,)."""
        return self._figure(
            [intervals.replicates(one.outcome_QH, samples=samples, seed=seed) for one in self.perspectives]
        )

    def _figure(self, recalls: Sequence[np.ndarray]) -> np.ndarray:
        """Of recalls (samples, H), one for each perspective."""
        found = []
        for recall_SH, one in zip(recalls, self.perspectives, strict=True):
            if self.metric == MARGIN:
                found.append(recall_SH[:, one.own] - recall_SH.mean(axis=1))
            else:
                best_SH = recall_SH == recall_SH.max(axis=1, keepdims=True)
                found.append(best_SH[:, one.own] / best_SH.sum(axis=1))
        return np.asarray(np.mean(found, axis=0))


def measure(found: Iterable[Measurement], branches: Sequence[str], directions: Sequence[str]) -> Iterator[Measurement]:
    """Both figures of each direction, from what retrieval measured; none of a model of one branch.

    None either where the readouts leave out a branch, or no perspective has a branch of its own.
    """
    recall = {(one.metric, one.query, one.readout): one for one in found}
    queries = list(dict.fromkeys(query for _, query, _ in recall if query in branches))
    readouts = [f"{PREFIX}{branch}" for branch in branches]
    for direction in directions:
        asked = [[recall.get((f"{direction}_recall@1", query, readout)) for readout in readouts] for query in queries]
        if len(branches) < 2 or not asked or any(one is None for each in asked for one in each):
            continue
        own = tuple(
            Own(np.stack([_outcome(one) for one in each if one], axis=1), branches.index(query))
            for query, each in zip(queries, asked, strict=True)
        )
        (task,), protocol = {one.task for one in recall.values()}, next(one.protocol for one in asked[0] if one)
        for metric, chance in ((BEST, 1 / len(branches)), (MARGIN, 0.0)):
            estimate = Specialisation(metric, own)
            yield Measurement(task, protocol, READOUT, QUERY, f"{direction}_{metric}", chance, estimate)


def sentences(figures: Iterable[Mapping[str, Any]], *, benchmarks_named: bool = True) -> Iterator[str]:
    """In words, a sentence for each model and benchmark, from rows of results."""
    rows = [row for row in figures if row["readout"] == READOUT]
    for dataset, run in dict.fromkeys((row["dataset"], row["run"]) for row in rows):
        own = [row for row in rows if (row["dataset"], row["run"]) == (dataset, run)]
        best = {row["metric"].removesuffix(f"_{BEST}"): row for row in own if row["metric"].endswith(BEST)}
        margin = {row["metric"].removesuffix(f"_{MARGIN}"): row for row in own if row["metric"].endswith(MARGIN)}
        shares = " and ".join(f"{_figure(row, ' %')} of perspectives {words(way)}" for way, row in best.items())
        points = " and ".join(_figure(row, "", signed=True) for row in margin.values())
        chance = percent(next(iter(best.values()))["chance"])
        yield (
            f"{f'{words(dataset)}, ' if benchmarks_named else ''}{run}: the branch of a perspective's own name is the "
            f"best on {shares}, where chance is {chance} %; its R@1 differs from the mean of all branches by "
            f"{points} points."
        )


def _outcome(figure: Measurement) -> np.ndarray:
    assert isinstance(figure.estimate, MeanEstimate)
    return figure.estimate.outcome_N


def _figure(row: Mapping[str, Any], unit: str, signed: bool = False) -> str:
    value, low, high = (percent(row[name], signed) for name in ("value", "ci_low", "ci_high"))
    return f"{value}{unit} ({low} to {high})"
