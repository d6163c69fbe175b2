"""Measurements as rows of the `results` table, and the few figures that a run is summed up by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from evaluation import intervals
from evaluation.comparison import figure_of
from evaluation.config import EvaluateConfig
from evaluation.task import Evaluation, Measurement
from evaluation.tasks import asking


def rows(evaluations: Sequence[Evaluation], config: EvaluateConfig) -> list[dict[str, Any]]:
    """One row per figure, with its 95 % interval, its chance and the number of units behind it."""
    return [row for evaluation in evaluations for row in _rows(evaluation, config)]


def _rows(evaluation: Evaluation, config: EvaluateConfig) -> list[dict[str, Any]]:
    found = []
    for figure in evaluation.measurements:
        low, high = intervals.interval(figure.replicates(config))
        found.append(
            _about(evaluation, figure)
            | {"value": figure.value, "chance": figure.chance, "ci_low": low, "ci_high": high}
        )
    return found


def differences(evaluations: Sequence[Evaluation], config: EvaluateConfig) -> list[dict[str, Any]]:
    """One row per figure and pair of runs measured on the same benchmark: the earlier run minus the later, paired."""
    found = []
    for one, other in combinations(evaluations, 2):
        if one.benchmark is not other.benchmark:
            continue
        for key in (key for key in one.by_key if key in other.by_key):
            figure, compared = one.by_key[key], other.by_key[key]
            apart_S = figure.replicates(config) - compared.replicates(config)
            apart = figure_of(figure.value - compared.value, apart_S)
            row = _about(one, figure) | {"other_run": other.encoder.run, "other_model": other.encoder.fingerprint}
            found.append(row | {"difference": apart.value, "ci_low": apart.low, "ci_high": apart.high})
    return found


def _about(evaluation: Evaluation, figure: Measurement) -> dict[str, Any]:
    """What a figure is of."""
    return {
        "run": evaluation.encoder.run,
        "model": evaluation.encoder.fingerprint,
        "task": figure.task,
        "dataset": evaluation.benchmark.name,
        "split": evaluation.benchmark.spec.split,
        "protocol": f"{evaluation.benchmark.name}/{figure.protocol}",
        "readout": figure.readout,
        "query": figure.query,
        "metric": figure.metric,
        "n": figure.estimate.n,
    }


def headline(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
    """Per run and benchmark what each task sums it up by: {value, chance} of the served vector, by what was asked."""
    found: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        figures = {
            name: figure for task in asking(evaluation.benchmark) for name, figure in task.summary(evaluation).items()
        }
        found.setdefault(evaluation.encoder.run, {})[evaluation.benchmark.name] = figures
    return found
