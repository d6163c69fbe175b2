"""What a task is: one kind of question asked of a model on a benchmark, such as retrieval.

A task says what it needs of the features, measures, and shows its part of the report. Everything else knows tasks
through this alone; each is a file in `tasks/`, with a template of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from evaluation.benchmarks import Benchmark
from evaluation.branch_views import Known
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.features import EncodedBenchmark, Needs

SERVED = "mean"  # the readout that an index serves, that reports and summaries are about


class Estimate(Protocol):
    """What a figure is computed from: so many units (queries, images), which can be drawn again."""

    @property
    def n(self) -> int:
        """Number of units."""

    @property
    def value(self) -> float:
        """The figure."""

    def replicates(self, *, samples: int, seed: int) -> np.ndarray:
        """The figure on each bootstrap resample, (samples,). Figures of as many units share the same draws."""


@dataclass(frozen=True)
class Measurement:
    """One figure of one model on one benchmark."""

    task: str
    protocol: str
    readout: str
    query: str  # what was asked: the perspective of the queries, or the task
    metric: str
    chance: float
    estimate: Estimate

    @property
    def value(self) -> float:
        """The figure."""
        return self.estimate.value

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies it among those of its model and benchmark."""
        return self.task, self.readout, self.query, self.metric

    def replicates(self, config: EvaluateConfig) -> np.ndarray:
        """The figure on each bootstrap resample; paired between models measured on the same benchmark."""
        return self.estimate.replicates(samples=config.bootstrap_samples, seed=config.seed)


@dataclass(frozen=True)
class Subject:
    """A model on a benchmark, encoded."""

    encoder: Encoder
    benchmark: Benchmark
    features: EncodedBenchmark
    config: EvaluateConfig
    train: EncodedBenchmark | None = None  # of the benchmark's training split, where it has one


@dataclass(frozen=True)
class Evaluation:
    """All that was measured of one model on one benchmark; `shown` is what each task keeps for its pictures."""

    encoder: Encoder
    benchmark: Benchmark
    measurements: tuple[Measurement, ...]
    shown: Mapping[str, Any]
    knows: tuple[Known, ...]  # what each branch knows of a few pictures
    by_key: dict[tuple[str, str, str, str], Measurement] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_key", {found.key: found for found in self.measurements})

    def find(self, task: str, readout: str, query: str, metric: str) -> Measurement | None:
        """One measurement, if it was made."""
        return self.by_key.get((task, readout, query, metric))


@dataclass(frozen=True)
class Card:
    """A figure at the top of the report, as text, with what it says and what it is to be compared with."""

    value: str
    unit: str
    says: str
    beside: str


class Task(Protocol):
    """One kind of question."""

    @property
    def name(self) -> str:
        """Of the task in results, and of its template in `templates/tasks`."""

    @property
    def notes(self) -> Mapping[str, str]:
        """The protocol in words, by what they are about, for the end of the report."""

    def asks(self, benchmark: Benchmark) -> bool:
        """Whether the benchmark has anything for this task."""

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:
        """What is to be encoded of the benchmark beside its pictures."""

    def measure(self, subject: Subject) -> tuple[list[Measurement], Any]:
        """All figures, and whatever the report's part wants beside them."""

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """The few figures that a run is summed up by: {value, chance} by metric and query."""

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:
        """What the report opens with, of several models on one benchmark."""

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        """What its template shows of several models on one benchmark."""


def summed_up(evaluation: Evaluation, task: str, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """These metrics of the served vector, metric by metric."""
    return {
        f"{metric} {figure.query}": {"value": round(figure.value, 6), "chance": round(figure.chance, 6)}
        for metric in metrics
        for figure in evaluation.measurements
        if (figure.task, figure.readout, figure.metric) == (task, SERVED, metric)
    }
