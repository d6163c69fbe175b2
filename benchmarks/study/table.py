"""Tables of the study from the results of its runs: means over seeds, standard errors, paired differences.

Columns are means over what they name (tasks, perspectives), in per cent. `own` is retrieval in which the branch of a
perspective answers its queries; for a model of one branch it is the served vector's. `specialisation` is how far these
branches lie above the mean of all branches, in points of R@1, both ways; a model of one branch has none. `mIoU` is of
whole scenes, of objects and backgrounds, `pointing` of the main object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.study.runs import WIDTHS, rows

SERVED = "mean"
COST = "CPU s"  # of the whole run, its evaluation included
NONE = "–"  # of results that lack a figure


@dataclass(frozen=True)
class Column:
    """A figure of a run: a mean over rows of its results. `of` picks them."""

    name: str
    of: Callable[[pd.DataFrame], pd.Series]


def _served(task: str, metric: str, query: str | None = None) -> Callable[[pd.DataFrame], pd.Series]:
    def pick(frame: pd.DataFrame) -> pd.Series:
        chosen = (frame["task"] == task) & (frame["readout"] == SERVED) & (frame["metric"] == metric)
        return chosen if query is None else chosen & (frame["query"] == query)

    return pick


def _own_branch(metric: str) -> Callable[[pd.DataFrame], pd.Series]:
    def pick(frame: pd.DataFrame) -> pd.Series:
        own = frame["readout"] == "branch:" + frame["query"]
        single = ~frame["readout"].str.startswith("branch:").any() | (frame["readout"] == "branch:image").any()
        chosen = (frame["readout"] == SERVED) if single else own
        return chosen & (frame["metric"] == metric)

    return pick


COLUMNS = (
    Column("zero-shot", _served("classification", "accuracy")),
    Column("object", _served("classification", "accuracy", "object")),
    Column("color", _served("classification", "accuracy", "color")),
    Column("background", _served("classification", "accuracy", "background")),
    Column("style", _served("classification", "accuracy", "style")),
    Column("attributes", _served("composition", "choice_accuracy", "attribute_swap")),
    Column("relations", _served("composition", "choice_accuracy", "relation_opposite")),
    Column("T2I R@1", _served("retrieval", "text_to_image_recall@1")),
    Column("I2T R@1", _served("retrieval", "image_to_text_recall@1")),
    Column("T2I own", _own_branch("text_to_image_recall@1")),
    Column("specialisation", lambda frame: frame["metric"].str.endswith("_own_branch_margin")),
    Column("mIoU", _served("dense", "mean_iou", "scene")),
    Column("pointing", _served("dense", "pointing", "main_object")),
)
NAMES = tuple(column.name for column in COLUMNS)


def read(results: Path) -> pd.DataFrame:
    """All results of a folder, or of the file that `gather` made of one."""
    files = sorted(results.glob("*.parquet")) if results.is_dir() else [results]
    found = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    words = found.select_dtypes("category").columns
    return found.astype(dict.fromkeys(words, "str"))


def gather(folder: Path, out: Path) -> int:
    """Write all results of a folder as one file, small enough for a repository; the number of its runs."""
    found = read(folder)
    found.astype(dict.fromkeys(found.select_dtypes("object"), "category")).to_parquet(out, compression="zstd")
    return len(found[["row", "seed", "scored_on"]].drop_duplicates())


def figures(results: pd.DataFrame) -> pd.DataFrame:
    """One row per (row, seed, dataset), one column per figure, in per cent."""
    found = []
    for (row, seed, dataset), own in results.groupby(["row", "seed", "dataset"]):
        values = {column.name: 100 * own.loc[column.of(own), "value"].mean() for column in COLUMNS}
        cost = {COST: own["cpu_seconds"].iloc[0]}
        found.append({"row": row, "seed": seed, "dataset": dataset, **values, **cost})
    return pd.DataFrame(found)


def summary(of_runs: pd.DataFrame, dataset: str, names: Sequence[str] = NAMES) -> pd.DataFrame:
    """Mean over seeds, and its standard error where there are several, as text."""
    grouped = of_runs[of_runs["dataset"] == dataset].groupby("row", sort=False)[list(names)]
    mean, error = grouped.mean(), grouped.sem()
    shown = mean.map(lambda value: NONE if value != value else f"{value:.1f}")
    return shown.where(error.isna(), shown + error.map(lambda value: f" ± {value:.1f}"))


def paired(of_runs: pd.DataFrame, dataset: str, against: str, names: Sequence[str]) -> pd.DataFrame:
    """Differences to another row, seed by seed: mean, standard error and p of the paired t-test."""
    from scipy.stats import ttest_1samp

    own = of_runs[of_runs["dataset"] == dataset].set_index(["row", "seed"])[list(names)]
    if against not in own.index:
        return pd.DataFrame()
    difference = own.sub(own.xs(against, level="row"), level="seed").drop(index=against, level="row")

    def shown(values: pd.Series) -> str:
        values = values.dropna()
        if len(values) < 2:
            return f"{values.mean():+.1f}" if len(values) else NONE
        text = f"{values.mean():+.1f} ± {values.sem():.1f}"
        return f"{text} (p {ttest_1samp(values, 0).pvalue:.2f})" if values.sem() > 0 else text

    return difference.groupby("row", sort=False).agg(shown)


def markdown(results: Path, against: str = "o2m") -> str:
    """All tables of the results in a folder or file, rows in the order of rows.yaml, those of a width together."""
    known = rows()
    order = {name: number for number, name in enumerate(known)}
    of_runs = figures(read(results)).sort_values("row", key=lambda names: names.map(order), kind="stable")
    parts = []
    for dataset in of_runs["dataset"].unique():
        for width in WIDTHS:
            own = of_runs[of_runs["row"].map(lambda name, width=width: known[name].width == width)]
            base = against if width == known[against].width else f"{against}_{width}"
            parts += _of_a_width(own, dataset, width, base)
    return "\n".join(parts)


def _of_a_width(of_runs: pd.DataFrame, dataset: str, width: int, against: str) -> list[str]:
    """Lines of the tables of one benchmark and one width of vectors."""
    shown = of_runs[of_runs["dataset"] == dataset]
    names = [name for name in NAMES if shown[name].notna().any()]
    if shown.empty:
        return []
    means = summary(shown, dataset, [*names, COST])
    parts = [f"### {dataset}, vectors of {width} numbers", "", _as_markdown(means), ""]
    differences = paired(shown, dataset, against, names)
    if len(differences):
        parts += [f"Differences to {against}, seed by seed:", "", _as_markdown(differences), ""]
    return parts


def _as_markdown(table: pd.DataFrame) -> str:
    lines = [["row", *table.columns], ["---", *("---:" for _ in table.columns)]]
    lines += [[str(row), *values] for row, values in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
