"""What came out of evaluation, in lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.manifest import Manifest
from pipeline.storage import Location
from pipeline.summary import counted, words

OWN = "perspectives answered best by own branch"  # a count, unlike the rows above it


def describe(manifest: Manifest) -> list[str]:
    """A table of the headline figures for each benchmark, a column for each run, and where the report is."""
    headline: Mapping[str, Mapping[str, Any]] = manifest.detail["headline"]
    lines = [f"{counted(len(headline), 'run')} on {counted(manifest.counts['benchmarks'], 'benchmark')}"]
    for benchmark in dict.fromkeys(name for figures in headline.values() for name in figures):
        lines += _table(benchmark, {run: figures[benchmark] for run, figures in headline.items()})
    return [*lines, f"report: {report(manifest)}"]


def report(manifest: Manifest) -> Location:
    """Where the HTML report lies."""
    return Location.of(manifest.store) / str(manifest.detail["report"])


def headline_rows(by_run: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, float, dict[str, float]]]:
    """The figures of one benchmark: what was asked, its chance, and the value of each run."""
    names = dict.fromkeys(name for figures in by_run.values() for name, f in figures.items() if isinstance(f, Mapping))
    rows = []
    for name in names:
        values = {run: figures[name] for run, figures in by_run.items() if name in figures}
        rows.append((words(name), next(iter(values.values()))["chance"], {r: v["value"] for r, v in values.items()}))
    return rows


def _table(benchmark: str, by_run: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = headline_rows(by_run)
    title = f"{words(benchmark)}, served vector, %"
    wide = max(len(name) for name in [title, OWN, *(name for name, _, _ in rows)])
    columns = {run: max(len(run), 5) for run in by_run}
    lines = ["  ".join([f"{title:{wide}}", "chance", *(f"{run:>{width}}" for run, width in columns.items())])]
    for name, chance, values in rows:
        cells = [f"{_percent(values.get(run)):>{width}}" for run, width in columns.items()]
        lines.append("  ".join([f"{name:{wide}}", f"{_percent(chance):>6}", *cells]))
    won = {run: len(figures["own_branch_wins"]) for run, figures in by_run.items() if "own_branch_wins" in figures}
    if won:
        cells = [f"{won.get(run, '–'):>{width}}" for run, width in columns.items()]
        lines.append("  ".join([f"{OWN:{wide}}", " " * 6, *cells]))
    return lines


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"
