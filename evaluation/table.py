"""Measurements as rows of the `results` table, and the few figures that a run is summed up by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation import intervals
from evaluation.config import EvaluateConfig
from evaluation.task import Evaluation
from evaluation.tasks import asking


def rows(evaluations: Sequence[Evaluation], config: EvaluateConfig) -> list[dict[str, Any]]:
    """One row per figure, with its 95 % interval, its chance and the number of units behind it."""
    return [row for evaluation in evaluations for row in _rows(evaluation, config)]


def _rows(evaluation: Evaluation, config: EvaluateConfig) -> list[dict[str, Any]]:
    benchmark = evaluation.benchmark
    found = []
    for figure in evaluation.measurements:
        low, high = intervals.interval(figure.replicates(config))
        found.append(
            {
                "run": evaluation.encoder.run,
                "model": evaluation.encoder.fingerprint,
                "task": figure.task,
                "dataset": benchmark.name,
                "split": benchmark.spec.split,
                "protocol": f"{benchmark.name}/{figure.protocol}",
                "readout": figure.readout,
                "query": figure.query,
                "metric": figure.metric,
                "value": figure.value,
                "chance": figure.chance,
                "ci_low": low,
                "ci_high": high,
                "n": figure.estimate.n,
            }
        )
    return found


def headline(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
    """Per run and benchmark what each task sums it up by: {value, chance} of the served vector, by what was asked."""
    found: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        figures = {
            name: figure for task in asking(evaluation.benchmark) for name, figure in task.summary(evaluation).items()
        }
        found.setdefault(evaluation.encoder.run, {})[evaluation.benchmark.name] = figures
    return found
