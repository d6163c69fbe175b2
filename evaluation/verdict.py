"""How the first model stands to each other one, and to chance: what a report says in words before any table.

A question is a figure that a task is summed up by (`Task.summary`), of the served vector; in all of them more is
better. A model is called better or worse where the 95 % interval of the paired difference leaves out 0. With many
questions some do so by chance, so the words say of how many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.comparison import percent
from evaluation.table import Tables
from pipeline.summary import counted, words

NAMED = 4  # questions that are named of those where a model is worse, or better


@dataclass(frozen=True)
class Side:
    """The questions on which the first model is better, or worse: how many, and the clearest ones in words."""

    count: int
    named: str


@dataclass(frozen=True)
class Verdict:
    """The first model beside another one on a benchmark."""

    benchmark: str
    run: str
    other: str
    questions: int
    better: Side
    worse: Side

    @property
    def undecided(self) -> int:
        """Questions on which neither is better."""
        return self.questions - self.better.count - self.worse.count


@dataclass(frozen=True)
class Blind:
    """A model on a benchmark, with the questions on which it is not above chance, the farthest below it first."""

    benchmark: str
    run: str
    count: int
    named: str
    questions: int


def verdicts(tables: Tables) -> list[Verdict]:
    """Of the first model and each other one, benchmark by benchmark: what matters leads.

    That is where the first model is worse, on most questions first, then where it is better, then what is undecided.
    """
    return sorted(_verdicts(tables), key=lambda found: (-found.worse.count, -found.better.count))


def _verdicts(tables: Tables) -> Iterator[Verdict]:
    first = next(iter(tables.headline))
    asked = [row for row in tables.differences if row["run"] == first and tables.is_headline(row)]
    for benchmark, other in dict.fromkeys((row["dataset"], row["other_run"]) for row in asked):
        rows = [row for row in asked if (row["dataset"], row["other_run"]) == (benchmark, other)]
        better = sorted((row for row in rows if row["ci_low"] > 0), key=lambda row: -row["difference"])
        worse = sorted((row for row in rows if row["ci_high"] < 0), key=lambda row: row["difference"])
        yield Verdict(benchmark, first, other, len(rows), _side(better), _side(worse))


def blind(tables: Tables) -> Iterator[Blind]:
    """Models with questions whose interval holds chance, or lies below it."""
    asked = [row for row in tables.figures if tables.is_headline(row)]
    for benchmark, run in dict.fromkeys((row["dataset"], row["run"]) for row in asked):
        rows = [row for row in asked if (row["dataset"], row["run"]) == (benchmark, run)]
        missed = [row for row in rows if row["ci_low"] <= row["chance"]]
        missed.sort(key=lambda row: row["value"] - row["chance"])
        if missed:
            told = [f"{_question(row)} {percent(row['value'])}, chance {percent(row['chance'])}" for row in missed]
            yield Blind(benchmark, run, len(missed), _first(told, "; "), len(rows))


def sentence(verdict: Verdict) -> str:
    """A verdict as plain text."""
    worse, better = (
        f"{side.count} ({side.named})" if side.count else "none" for side in (verdict.worse, verdict.better)
    )
    return (
        f"{words(verdict.benchmark)}: of {counted(verdict.questions, 'question')}, {verdict.run} is worse than "
        f"{verdict.other} on {worse} and better on {better}; on {verdict.undecided} there is no clear difference."
    )


def blind_sentence(found: Blind) -> str:
    """The same of chance."""
    of = counted(found.questions, "question")
    return (
        f"{words(found.benchmark)}: {found.run} is not clearly above chance on {found.count} of {of} ({found.named})."
    )


def _side(rows: Sequence[dict[str, Any]]) -> Side:
    told = [f"{_question(row)} {percent(row['difference'], signed=True)}" for row in rows]
    return Side(len(rows), _first(told, ", "))


def _question(row: Mapping[str, Any]) -> str:
    return f"{words(row['metric'])} {words(row['query'])}"


def _first(told: Sequence[str], between: str) -> str:
    more = [f"{len(told) - NAMED} more"] if len(told) > NAMED else []
    return between.join([*told[:NAMED], *more])
