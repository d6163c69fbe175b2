"""Measurements as rows of the `results` table, and the few figures that a run is summed up by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation import intervals
from evaluation.branches import matrix
from evaluation.config import EvaluateConfig
from evaluation.measure import (
    CLASSIFICATION,
    IMAGE_TO_TEXT,
    MACRO_ACCURACY,
    PROTOCOL,
    RETRIEVAL,
    TEXT_TO_IMAGE,
    Evaluation,
)


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
                "suite": figure.suite,
                "dataset": benchmark.name,
                "split": benchmark.spec.split,
                "protocol": PROTOCOL[figure.suite],
                "readout": figure.readout,
                "query": figure.query,
                "metric": figure.metric,
                "value": figure.value,
                "chance": figure.chance,
                "ci_low": low,
                "ci_high": high,
                "n": len(figure.outcome_N),
            }
        )
    return found


def headline(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
    """Per run and benchmark, what the served vector reaches, as {value, chance} by what was asked."""
    found: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        served = [figure for figure in evaluation.measurements if figure.readout == "mean"]
        wanted = (
            (CLASSIFICATION, MACRO_ACCURACY),
            (RETRIEVAL, f"{TEXT_TO_IMAGE}_recall@1"),
            (RETRIEVAL, f"{IMAGE_TO_TEXT}_recall@1"),
        )
        figures: dict[str, Any] = {
            f"{metric} {figure.query}": {"value": round(figure.value, 4), "chance": round(figure.chance, 4)}
            for suite, metric in wanted
            for figure in served
            if (figure.suite, figure.metric) == (suite, metric)
        }
        if (branches := matrix(evaluation)) is not None:
            figures["own_branch_wins"] = list(branches.own_wins())
            figures["own_branch_ties"] = list(branches.own_ties())
        found.setdefault(evaluation.encoder.run, {})[evaluation.benchmark.name] = figures
    return found
