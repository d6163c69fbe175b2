"""One question asked of several runs on one benchmark: figures, intervals and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from evaluation import intervals
from evaluation.config import EvaluateConfig
from evaluation.task import Card, Evaluation


@dataclass(frozen=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 0; for differences."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """One question asked of every run; `figures` and `more` go by run, differences are first run minus other.

    `pairs` has the differences of any two runs, by the places of both: the earlier minus the later.
    """

    label: str
    n: int
    chance: float
    figures: tuple[Figure, ...]
    differences: tuple[Figure, ...]
    more: tuple[tuple[str, ...], ...]  # per run the values of further metrics, as they are shown
    pairs: Mapping[tuple[int, int], Figure]
    relevant: float | None = None  # mean number of right answers
    says: str | None = None  # what its figure is; without it, macro accuracy or R@1

    @property
    def words(self) -> str:
        """The label as words."""
        return self.label.replace("_", " ")

    def card(self, says: str, group: Sequence[Evaluation]) -> Card:
        """The first run's figure in large, the others beside it."""
        others = [
            f", {evaluation.encoder.run} {percent(figure.value)} %"
            for evaluation, figure in zip(group[1:], self.figures[1:], strict=True)
        ]
        beside = f"chance {percent(self.chance)} %{''.join(others)}"
        return Card(percent(self.figures[0].value), "%", says, beside)


def compare(
    group: Sequence[Evaluation],
    key: tuple[str, str, str, str],
    further: Sequence[str],
    config: EvaluateConfig,
    relevant: float | None = None,
) -> Row:
    """The row of one measurement's `key`, with `further` metrics of the same question."""
    task, readout, query, _ = key
    asked = [evaluation.by_key[key] for evaluation in group]
    drawn = [found.replicates(config) for found in asked]
    figures = [figure_of(found.value, replicate_S) for found, replicate_S in zip(asked, drawn, strict=True)]
    pairs = {
        (i, j): figure_of(asked[i].value - asked[j].value, drawn[i] - drawn[j])
        for i, j in combinations(range(len(group)), 2)
    }
    differences = tuple(pairs[0, j] for j in range(1, len(group)))
    more = tuple(
        tuple(shown(metric, evaluation.by_key[task, readout, query, metric].value) for metric in further)
        for evaluation in group
    )
    first = asked[0]
    return Row(query, first.estimate.n, first.chance, tuple(figures), differences, more, pairs, relevant)


def percent(value: float, signed: bool = False) -> str:
    """A share as per cent with one decimal; the smallest with two, so that chance is not shown as zero."""
    digits = 2 if 0 < abs(value) < 0.001 and not signed else 1
    shown = round(100 * value, digits) + 0.0  # so that no zero is a negative one
    return f"{shown:{'+' if signed else ''}.{digits}f}".replace("-", "−")


def shown(metric: str, value: float) -> str:
    """A value as text: shares in per cent, ranks as they are."""
    return f"{value:.1f}".removesuffix(".0") if metric.endswith("rank") else percent(value)


def figure_of(value: float, replicate_S: np.ndarray) -> Figure:
    """A value and what it is on each resample."""
    return Figure(value, *intervals.interval(replicate_S))
