"""The report: one HTML file with everything in it, that can be mailed and opened anywhere.

This module turns measurements into what the template shows; `templates/` decides how. All text is escaped by jinja2.
Pictures are inlined, charts are SVG, nothing is fetched.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import pipeline
from evaluation import specialisation, table, verdict
from evaluation.comparison import percent
from evaluation.config import EvaluateConfig
from evaluation.curves import Chart
from evaluation.table import Tables
from evaluation.task import Evaluation
from evaluation.tasks import TASKS, asking

TEMPLATES = Path(__file__).parent / "templates"
SHARED = (Path(pipeline.__file__).parent / "templates",)  # how all reports look
PACKAGES = ("holism", "torch", "torchvision", "open_clip_torch", "numpy", "pyarrow")


def render(
    evaluations: Sequence[Evaluation],
    config: EvaluateConfig,
    fingerprint: str,
    training: Sequence[Chart] = (),
    tables: Tables | None = None,
    captions: Mapping[str, float] | None = None,
    *,
    has_parquet: bool = True,
) -> str:
    """The whole page.

    `training` are curves of the runs on the way, `tables` are made unless they come along, `captions` are the train
    stage's figures of those that its runs learnt from. With `has_parquet` it says that Parquet files lie beside it.
    """
    tables = tables or table.tables(evaluations, config)
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, *SHARED]),
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
        verdicts=verdict.verdicts(tables),
        blind=list(verdict.blind(tables)),
        specialised=list(specialisation.sentences(tables.figures, benchmarks_named=len(grouped) > 1)),
        training=training,
        captions=captions or {},
        has_parquet=has_parquet,
        notes={about: text for task in TASKS for about, text in task.notes.items()},
        versions=versions(),
    )


def shade(deviation: float, largest: float) -> str:
    """Background of a heat-map cell: blue above the column's mean, sand below it, paler the nearer."""
    strength = min(1.0, abs(deviation) / largest) if largest > 0 else 0.0
    colour = "var(--run0)" if deviation > 0 else "var(--run1)"  # each has its own shade in dark mode
    return f"color-mix(in srgb, {colour} {55 * strength:.1f}%, transparent)"


def section(group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
    """What the page shows of one benchmark, for all runs side by side."""
    tasks = asking(group[0].benchmark)
    return {
        "benchmark": group[0].benchmark,
        "runs": [evaluation.encoder for evaluation in group],
        "cards": [card for task in tasks for card in task.cards(group, config)],
        "parts": [(f"tasks/{task.name}.html.j2", task.part(group, config)) for task in tasks],
        "knows": [(evaluation.encoder, evaluation.knows) for evaluation in group if evaluation.knows],
    }


def versions() -> dict[str, str]:
    """What the figures were made with."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a distribution"
    return found
