"""Figures of the study's runs from their results: a column each, in per cent, and what a run costs.

Columns are means over what they name (tasks, perspectives), of the served vector unless they say `best`: there the
branch with the highest score answers each text (the readout `max`; `rerank` of a model with a second score), and
`own`: there the branch of the perspective that is asked about answers. A model of one branch has one vector in all.
`specialisation` is how far own branches lie above the mean of all branches, in points of R@1, both ways; a model of
one branch has none. `mIoU` is of whole scenes, of objects and backgrounds, `pointing` of the main object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.study.recipes import rows
from pipeline.errors import HolismError

SERVED = "mean"
BEST = ("rerank", "max", SERVED)  # of those that a figure was measured by, the first
PERSPECTIVES = {"object": "main_object", "color": "main_object"}  # that tasks of other names ask about
FLOAT_BYTES = 4
Pick = Callable[[pd.DataFrame], pd.Series]


@dataclass(frozen=True)
class Column:
    """A figure of a run: a mean over rows of its results. `of` picks them."""

    name: str
    of: Pick


def _branches(frame: pd.DataFrame) -> list[str]:
    """Readouts of single branches; a model of one branch has none."""
    return frame.loc[frame["readout"].str.startswith("branch:"), "readout"].unique().tolist()


def _served(task: str, metric: str, query: str | None = None) -> Pick:
    def pick(frame: pd.DataFrame) -> pd.Series:
        chosen = (frame["task"] == task) & (frame["readout"] == SERVED) & (frame["metric"] == metric)
        return chosen if query is None else chosen & (frame["query"] == query)

    return pick


def _best(task: str, metric: str, query: str | None = None) -> Pick:
    def pick(frame: pd.DataFrame) -> pd.Series:
        measured = (frame["task"] == task) & (frame["metric"] == metric)
        if query is not None:
            measured &= frame["query"] == query
        by = set(frame.loc[measured, "readout"])
        return measured & (frame["readout"] == next((readout for readout in BEST if readout in by), SERVED))

    return pick


def _own_branch(task: str, metric: str) -> Pick:
    """Nothing where some question has no branch: a mean over the others would be of easier or harder questions."""

    def pick(frame: pd.DataFrame) -> pd.Series:
        measured = (frame["task"] == task) & (frame["metric"] == metric)
        served = measured & (frame["readout"] == SERVED)
        if not _branches(frame):
            return served
        own = measured & (frame["readout"] == "branch:" + frame["query"].replace(PERSPECTIVES))
        return own & (set(frame.loc[own, "query"]) == set(frame.loc[served, "query"]))

    return pick


COLUMNS = (
    Column("zero-shot", _served("classification", "accuracy")),
    Column("zero-shot best", _best("classification", "accuracy")),
    Column("zero-shot own", _own_branch("classification", "accuracy")),
    Column("object", _served("classification", "accuracy", "object")),
    Column("color", _served("classification", "accuracy", "color")),
    Column("background", _served("classification", "accuracy", "background")),
    Column("style", _served("classification", "accuracy", "style")),
    Column("attributes", _served("composition", "choice_accuracy", "attribute_swap")),
    Column("attributes best", _best("composition", "choice_accuracy", "attribute_swap")),
    Column("relations", _served("composition", "choice_accuracy", "relation_opposite")),
    Column("group", _served("classification", "accuracy", "group")),
    Column("subgroup", _served("classification", "accuracy", "subgroup")),
    Column("group macro", _served("classification", "macro_accuracy", "group")),
    Column("subgroup macro", _served("classification", "macro_accuracy", "subgroup")),
    Column("T2I R@1", _served("retrieval", "text_to_image_recall@1")),
    Column("I2T R@1", _served("retrieval", "image_to_text_recall@1")),
    Column("T2I best", _best("retrieval", "text_to_image_recall@1")),
    Column("I2T best", _best("retrieval", "image_to_text_recall@1")),
    Column("T2I own", _own_branch("retrieval", "text_to_image_recall@1")),
    Column("I2T own", _own_branch("retrieval", "image_to_text_recall@1")),
    Column("specialisation", lambda frame: frame["metric"].str.endswith("_own_branch_margin")),
    Column("mIoU", _served("dense", "mean_iou", "scene")),
    Column("pointing", _served("dense", "pointing", "main_object")),
)
NAMES = tuple(column.name for column in COLUMNS)
RECALLS = ("T2I R@1", "I2T R@1")
# What a run costs: operations forward and backward; training alone, of one thread; an index of 32-bit numbers. And how
# near to each other the branches ended. With the decimals that are shown.
COSTS = {
    "GFLOP a picture": 2,
    "GFLOP a sample": 2,
    "training CPU s": 0,
    "samples a CPU s": 1,
    "memory, MiB": 0,
    "bytes an image": 0,
    "bytes, all branches": 0,
    "R@1 a CPU s": 2,
    "branch cosine": 2,
}


def read(results: Path) -> pd.DataFrame:
    """All results of a folder, or of the file that `gather` made of one. Raises HolismError where there are none."""
    files = sorted(results.glob("*.parquet")) if results.is_dir() else [results]
    if not files or not files[0].is_file():
        raise HolismError(f"{results} has no results; run rows first, or name a file or folder of results")
    found = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    words = found.select_dtypes("category").columns
    return found.astype(dict.fromkeys(words, "str"))


def gather(folder: Path, out: Path) -> int:
    """Write all results of a folder as one file, small enough for a repository; the number of its runs."""
    found = read(folder)
    found.astype(dict.fromkeys(found.select_dtypes("object"), "category")).to_parquet(out, compression="zstd")
    return len(found[["row", "seed", "scored_on"]].drop_duplicates())


def figures(results: pd.DataFrame) -> pd.DataFrame:
    """One row per (row, seed, dataset), one column per figure, in per cent; costs beside them."""
    found = []
    for (row, seed, dataset), own in results.groupby(["row", "seed", "dataset"]):
        values = {column.name: 100 * own.loc[column.of(own), "value"].mean() for column in COLUMNS}
        recall = sum(values[name] for name in RECALLS) / len(RECALLS)
        found.append({"row": row, "seed": seed, "dataset": dataset, **values, **_costs(own, recall)})
    return pd.DataFrame(found)


def _costs(run: pd.DataFrame, recall: float) -> dict[str, float]:
    """Results of the first runs have no costs of training apart."""
    first = run.iloc[0]
    row = rows().get(first["row"])
    vector = FLOAT_BYTES * row.width if row else float("nan")
    is_index = "rerank" not in set(run["readout"])  # which reads the patches of all images
    seconds = first.get("training_cpu_seconds", float("nan"))
    values = (
        first.get("gflop_of_a_picture", float("nan")),
        first.get("gflop_of_a_sample", float("nan")),
        seconds,
        first.get("images_seen", float("nan")) / seconds,
        first.get("memory_mib", float("nan")),
        vector,
        vector * max(1, len(_branches(run))) if is_index else float("nan"),
        recall / seconds,
        first.get("branch_cosine", float("nan")),
    )
    return dict(zip(COSTS, values, strict=True))
