"""Curves of training: the loss of each run by step, and what evaluations measured on the way, from its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.manifest import Manifest

MOST_POINTS = 500  # of one curve
PREFIX = "eval/"  # of names of figures that were measured on the way: eval/BENCHMARK/METRIC, then perhaps /QUERY
METRICS = "metrics.jsonl"
Points = list[tuple[int, float]]  # steps done, and a value


@dataclass(frozen=True)
class Curves:
    """Of one run; `evaluations` by BENCHMARK/METRIC."""

    loss: Points
    evaluations: dict[str, Points]


@dataclass(frozen=True)
class Chart:
    """One picture: a line for each run, which may be empty, with the range of each axis."""

    title: str
    lines: dict[str, Points]
    steps: int
    low: float
    high: float
    is_share: bool

    def at(self, step: float, value: float) -> tuple[float, float]:
        """Where a point lies, as shares of the picture's width and height, from the top left."""
        return step / max(self.steps, 1), 1 - (value - self.low) / ((self.high - self.low) or 1)

    def marks(self) -> Iterator[float]:
        """Values to write beside the picture."""
        return (self.low + (self.high - self.low) * part / 4 for part in range(5))


def read(train: Manifest) -> dict[str, Curves]:
    """Of every run of the train stage that left metrics, by its name. Raises StoreError where these are damaged."""
    curves = {}
    for name, run in train.detail["runs"].items():
        for part in train.select(f"{run['folder'].rpartition('/')[0]}/{METRICS}"):
            train.check(part)
            curves[name] = _of_rows([json.loads(line) for line in train.location(part).read().splitlines()])
    return curves


def charts(curves: Mapping[str, Curves]) -> list[Chart]:
    """A picture of the losses, and one of each figure that was measured at least twice."""
    figures = dict.fromkeys(name for run in curves.values() for name in run.evaluations)
    found = [_chart("loss", {run: of.loss for run, of in curves.items()}, is_share=False)]
    for name in figures:
        found += [_chart(name, {run: of.evaluations.get(name, []) for run, of in curves.items()}, is_share=True)]
    return [chart for chart in found if chart is not None]


def _chart(title: str, lines: dict[str, Points], *, is_share: bool) -> Chart | None:
    """None where no line has two points."""
    if all(len(points) < 2 for points in lines.values()):
        return None
    values = [value for points in lines.values() for _, value in points]
    steps = max(step for points in lines.values() for step, _ in points)
    return Chart(title, lines, steps, 0.0 if is_share else min(values), max(values), is_share)


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> Curves:
    """Of long runs each point of the loss is the mean of several steps."""
    together = max(1, -(-len(rows) // MOST_POINTS))
    groups = [rows[start : start + together] for start in range(0, len(rows), together)]
    loss = [(group[-1]["step"] + 1, sum(row["loss"] for row in group) / len(group)) for group in groups]
    evaluations: dict[str, Points] = {}
    for row in rows:
        for name, value in row.items():
            figure = name.removeprefix(PREFIX)
            if name.startswith(PREFIX) and figure.count("/") == 1:
                evaluations.setdefault(figure, []).append((row["step"] + 1, value))
    return Curves(loss, evaluations)
