"""The tables of the report as Markdown: for a README, an issue, or a diff of two evaluations.

They are made from the rows of `results.parquet` and `differences.parquet`, so all of these say the same.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from evaluation import specialisation, verdict
from evaluation.comparison import percent, shown
from evaluation.config import EvaluateConfig
from evaluation.table import Tables
from evaluation.task import SERVED
from pipeline.summary import words

Rows = Sequence[Mapping[str, Any]]


def render(tables: Tables, config: EvaluateConfig, fingerprint: str) -> str:
    """The whole page."""
    first = _text(next(iter(tables.headline)))
    lines = [
        f"# {', '.join(_text(run) for run in tables.headline)}",
        "",
        f"Shares are in per cent, with 95 % intervals of {config.bootstrap_samples} resamples.",
        f"Differences are {first} minus the other model, paired; bold where the interval leaves out 0.",
        "",
        *(f"- {_text(verdict.sentence(found))}" for found in verdict.verdicts(tables)),
        *(f"- {_text(verdict.blind_sentence(found))}" for found in verdict.blind(tables)),
        *(f"- {_text(sentence)}" for sentence in specialisation.sentences(tables.figures)),
    ]
    for (dataset, split), rows in _grouped(tables.figures, "dataset", "split"):
        lines += ["", f"## {_text(dataset)} ({_text(split)})"]
        for (task,), asked in _grouped(rows, "task"):
            apart = [row for row in tables.differences if (row["dataset"], row["task"]) == (dataset, task)]
            lines += ["", f"### {_text(words(task))}, served vector", ""]
            lines += _served(asked, apart, list(tables.headline))
            lines += _by_readout([row for row in asked if tables.is_headline({**row, "readout": SERVED})])
    return "\n".join([*lines, "", f"Holism evaluation `{fingerprint[:12]}`", ""])


def _served(rows: Rows, differences: Rows, runs: Sequence[str]) -> Iterator[str]:
    """A row for each question and metric, a column for each model and for each difference from the first."""
    value = {(row["query"], row["metric"], row["run"]): row for row in rows if row["readout"] == SERVED}
    apart = {
        (row["query"], row["metric"], row["other_run"]): row
        for row in differences
        if row["readout"] == SERVED and row["run"] == runs[0]
    }
    asked = dict.fromkeys((query, metric) for query, metric, _ in value)
    yield from _table(
        ["question", "metric", "n", "chance", *runs, *(f"minus {run}" for run in runs[1:])],
        (
            [
                words(query),
                words(metric),
                str(value[query, metric, runs[0]]["n"]),
                shown(metric, value[query, metric, runs[0]]["chance"]),
                *(_figure(value.get((query, metric, run)), metric) for run in runs),
                *(_difference(apart.get((query, metric, run)), metric) for run in runs[1:]),
            ]
            for query, metric in asked
            if (query, metric, runs[0]) in value
        ),
    )


def _by_readout(rows: Rows) -> Iterator[str]:
    """Every readout of every model, a column for each question; of models of several branches."""
    for (metric,), asked in _grouped(rows, "metric"):
        value = {(row["run"], row["readout"], row["query"]): row["value"] for row in asked}
        lines = dict.fromkeys((run, readout) for run, readout, _ in value)
        queries = dict.fromkeys(row["query"] for row in asked)
        if len({readout for _, readout in lines}) > 1:
            yield from ("", f"{_text(words(metric))} by readout:", "")
            yield from _table(
                ["run", "readout", *map(words, queries)],
                (
                    [run, words(readout), *(percent(value[run, readout, query]) for query in queries)]
                    for run, readout in lines
                    if all((run, readout, query) in value for query in queries)
                ),
            )


def _figure(row: Mapping[str, Any] | None, metric: str) -> str:
    if row is None:
        return ""
    return f"{shown(metric, row['value'])} ({shown(metric, row['ci_low'])} to {shown(metric, row['ci_high'])})"


def _difference(row: Mapping[str, Any] | None, metric: str) -> str:
    if row is None:
        return ""
    value, low, high = (
        f"{row[name]:+.1f}".replace("-", "−") if metric.endswith("rank") else percent(row[name], signed=True)
        for name in ("difference", "ci_low", "ci_high")
    )
    differs = row["ci_low"] > 0 or row["ci_high"] < 0
    return f"{f'**{value}**' if differs else value} ({low} to {high})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_text, header))} |"
    yield f"|{' --- |' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(map(_text, row))} |"


def _text(text: str) -> str:
    """Text from outside in one cell of a table, without a meaning to Markdown or HTML."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|").replace("[", "\\[")


def _grouped(rows: Rows, *columns: str) -> Iterator[tuple[tuple[Any, ...], Rows]]:
    """Rows of equal values in these columns, in the order in which they come first."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    yield from groups.items()
