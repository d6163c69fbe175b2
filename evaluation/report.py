"""The report: one HTML file with everything in it, that can be mailed and opened anywhere.

This module turns measurements into what the template shows; `templates/` decides how. All text is escaped by jinja2.
Pictures are inlined, charts are SVG, nothing is fetched.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import pipeline
from evaluation import branches, intervals, measure
from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.measure import Evaluation, Measurement
from pipeline.thumbnails import thumbnail

DIRECTIONS = (measure.TEXT_TO_IMAGE, measure.IMAGE_TO_TEXT)
TEMPLATES = Path(__file__).parent / "templates"
SHARED = Path(pipeline.__file__).parent / "templates"  # how all reports look
LARGEST_CONFUSION = 40  # classes; a larger matrix is no picture any more
PACKAGES = ("holism", "torch", "torchvision", "open_clip_torch", "numpy", "pyarrow")


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
    """One question asked of every run; `figures` and `more` go by run, differences are first run minus other."""

    label: str
    n: int
    chance: float
    figures: tuple[Figure, ...]
    differences: tuple[Figure, ...]
    more: tuple[tuple[float, ...], ...]  # per run the values of further metrics
    relevant: float | None = None  # mean number of right answers


def render(evaluations: Sequence[Evaluation], config: EvaluateConfig, fingerprint: str) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "words": lambda name: name.replace("_", " "), "shade": shade}
    grouped: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        grouped.setdefault(evaluation.benchmark.name, []).append(evaluation)
    return environment.get_template("report.html.j2").render(
        fingerprint=fingerprint,
        sections=[section(group, config) for group in grouped.values()],
        config=config,
        further=[f"R@{k}" for k in config.ks if k > 1],
        versions=versions(),
    )


def percent(value: float, signed: bool = False) -> str:
    """A share as per cent with one decimal; the smallest with two, so that chance is not shown as zero."""
    digits = 2 if 0 < abs(value) < 0.001 and not signed else 1
    text = f"{100 * value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−")


def shade(deviation: float, largest: float) -> str:
    """Background of a heat-map cell: blue above the column's mean, sand below it, paler the nearer."""
    strength = min(1.0, abs(deviation) / largest) if largest > 0 else 0.0
    colour = "43, 92, 138" if deviation > 0 else "199, 125, 46"
    return f"rgba({colour}, {0.55 * strength:.3f})"


def section(group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
    """What the page shows of one benchmark, for all runs side by side."""
    benchmark = group[0].benchmark
    return {
        "benchmark": benchmark,
        "runs": [evaluation.encoder for evaluation in group],
        "tasks": _task_rows(group, config),
        "directions": _retrieval_rows(group, config),
        "matrices": [
            (evaluation.encoder.run, direction, view)
            for evaluation in group
            for direction in DIRECTIONS
            if (view := _matrix(evaluation, direction))
        ],
        "readouts": [(evaluation.encoder.run, view) for evaluation in group if (view := _by_readout(evaluation))],
        "looks": [(evaluation.encoder, evaluation.looks) for evaluation in group if evaluation.looks],
        "confusions": _confusions(group),
        "examples": _examples(group),
    }


def _task_rows(group: Sequence[Evaluation], config: EvaluateConfig) -> list[Row]:
    return [
        _row(group, (measure.CLASSIFICATION, "mean", task, measure.MACRO_ACCURACY), [measure.ACCURACY], config)
        for task in group[0].benchmark.labels
    ]


def _retrieval_rows(group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, list[Row]]:
    """Text to image, then image to text; a row per perspective."""
    found: dict[str, list[Row]] = {}
    for direction in DIRECTIONS:
        for queries in group[0].benchmark.queries:
            key = (measure.RETRIEVAL, "mean", queries.perspective, f"{direction}_recall@1")
            further = [f"{direction}_recall@{k}" for k in config.ks if k > 1]
            pairs = queries.pair_text_P if direction == measure.TEXT_TO_IMAGE else queries.pair_image_P
            relevant = len(pairs) / len(np.unique(pairs))
            found.setdefault(direction, []).append(_row(group, key, further, config, relevant))
    return found


def _row(
    group: Sequence[Evaluation],
    key: tuple[str, str, str, str],
    further: Sequence[str],
    config: EvaluateConfig,
    relevant: float | None = None,
) -> Row:
    suite, readout, query, _ = key
    asked = [evaluation.by_key[key] for evaluation in group]
    drawn = [found.replicates(config) for found in asked]
    figures = [_figure(found.value, replicate_S) for found, replicate_S in zip(asked, drawn, strict=True)]
    differences = [
        _figure(asked[0].value - other.value, drawn[0] - replicate_S)
        for other, replicate_S in zip(asked[1:], drawn[1:], strict=True)
    ]
    more = tuple(
        tuple(evaluation.by_key[(suite, readout, query, metric)].value for metric in further) for evaluation in group
    )
    first: Measurement = asked[0]
    return Row(query, len(first.outcome_N), first.chance, tuple(figures), tuple(differences), more, relevant)


def _figure(value: float, replicate_S: np.ndarray) -> Figure:
    return Figure(value, *intervals.interval(replicate_S))


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


def _by_readout(evaluation: Evaluation) -> dict[str, Any] | None:
    """Macro accuracy of every readout on every task; None where there is one readout, or no task."""
    found = [m for m in evaluation.measurements if m.metric == measure.MACRO_ACCURACY]
    readouts = list(dict.fromkeys(figure.readout for figure in found))
    if len(readouts) < 2:
        return None
    tasks = list(dict.fromkeys(figure.query for figure in found))
    value = {(figure.readout, figure.query): figure.value for figure in found}
    best = {task: max(value[readout, task] for readout in readouts) for task in tasks}
    return {"readouts": readouts, "tasks": tasks, "value": value, "best": best}


def _confusions(group: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Per task the confusion matrix of every run, rows as shares of the actual class."""
    found = []
    for task, spec in group[0].benchmark.spec.classification.items():
        if len(spec.classes) > LARGEST_CONFUSION:
            continue
        runs = [(evaluation.encoder.run, _shares(evaluation.confusions[task])) for evaluation in group]
        found.append({"task": task, "classes": spec.classes, "runs": runs})
    return found


def _shares(count_CC: np.ndarray) -> list[list[float]]:
    shares: list[list[float]] = (count_CC / np.maximum(count_CC.sum(axis=1, keepdims=True), 1)).tolist()
    return shares


def _examples(group: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """The same queries asked of every run, with the pictures that came first."""
    benchmark = group[0].benchmark
    pictures: dict[int, str] = {}
    found = []
    for asked in zip(*(evaluation.examples for evaluation in group), strict=True):
        answers = [
            {"run": evaluation.encoder.run, "pictures": _pictures(benchmark, example.images, example.right, pictures)}
            for evaluation, example in zip(group, asked, strict=True)
        ]
        found.append({"example": asked[0], "answers": answers})
    return found


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


def versions() -> dict[str, str]:
    """What the figures were made with."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a distribution"
    return found
