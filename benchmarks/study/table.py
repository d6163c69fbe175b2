"""Tables of the study from the results of its runs: means over seeds, standard errors, paired differences.

Columns are means over what they name (tasks, perspectives), in per cent, of the served vector unless they say `best`:
there the branch with the highest score answers each text (the readout `max`; `rerank` of a model with a second score),
and `own`: there the branch of a text's perspective answers it. A model of one branch has one vector in all of them.
`specialisation` is how far own branches lie above the mean of all branches, in points of R@1, both ways; a model of
one branch has none. `mIoU` is of whole scenes, of objects and backgrounds, `pointing` of the main object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.study.recipes import rows, variants
from pipeline.errors import HolismError

SERVED = "mean"
BEST = ("rerank", "max", SERVED)  # of those that a figure was measured by, the first
NONE = "–"  # of results that lack a figure
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


def _own_branch(metric: str) -> Pick:
    """Nothing where some perspective has no branch: a mean over the others would be of easier or harder questions."""

    def pick(frame: pd.DataFrame) -> pd.Series:
        served = (frame["readout"] == SERVED) & (frame["metric"] == metric)
        if not _branches(frame):
            return served
        own = (frame["readout"] == "branch:" + frame["query"]) & (frame["metric"] == metric)
        return own & (set(frame.loc[own, "query"]) == set(frame.loc[served, "query"]))

    return pick


COLUMNS = (
    Column("zero-shot", _served("classification", "accuracy")),
    Column("zero-shot best", _best("classification", "accuracy")),
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
    Column("T2I own", _own_branch("text_to_image_recall@1")),
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


@dataclass(frozen=True)
class Table:
    """A table as Markdown, with what it is called."""

    title: str
    text: str


def tables(results: Path, against: str = "o2m") -> dict[str, Table]:
    """All tables of the results in a folder or file, rows in the order of rows.yaml, those of a variant together.

    They are called DATASET, DATASET differences and costs, with the variant behind: `known`, `known differences`,
    `develop 16`, `costs 16`. Each row is compared with the row `against` of its own variant, or with the main one
    where the variant has none. What rows.yaml does not have is left out. Costs are means over all runs of a row.
    """
    known = rows()
    order = {name: number for number, name in enumerate(known)}
    of_runs = figures(read(results))
    of_runs = of_runs[of_runs["row"].isin(known)]
    of_runs = of_runs.sort_values("row", key=lambda names: names.map(order), kind="stable")
    variant = of_runs["row"].map(lambda name: known[name].variant)
    found: dict[str, Table] = {}
    for dataset in of_runs["dataset"].unique():
        for name, says in variants().items():
            base = f"{against}_{name}" if f"{against}_{name}" in known else against
            of_variant = (variant == name) | (of_runs["row"] == base)
            shown = of_runs[(of_runs["dataset"] == dataset) & of_variant]
            if not (variant[shown.index] == name).any():
                continue
            names = [column for column in NAMES if shown[column].notna().any()]
            title = f"{dataset}: {says}" if says else dataset
            found[f"{dataset} {name}".strip()] = Table(title, _as_markdown(summary(shown, dataset, names)))
            differences = paired(shown, dataset, base, names)
            if len(differences):
                title = f"{title}; differences to {base}, seed by seed"
                found[f"{dataset} differences {name}".strip()] = Table(title, _as_markdown(differences))
    for name, says in variants().items():
        costs = of_runs[(variant == name) & of_runs["training CPU s"].notna()]
        if len(costs):
            means = costs.groupby("row", sort=False)[list(COSTS)].mean()
            title = f"Costs: {says}" if says else "Costs"
            found[f"costs {name}".strip()] = Table(title, _as_markdown(means.apply(_shown)))
    return found


def markdown(results: Path, against: str = "o2m") -> str:
    """All tables below each other."""
    return "\n".join(f"### {table.title}\n\n{table.text}\n" for table in tables(results, against).values())


def filled(page: str, results: Path) -> str:
    """A page whose tables are those of the results: each stands below a line `<!-- table: NAME -->`.

    Raises HolismError where results have no table of a name.
    """
    found = tables(results)

    def fill(place: re.Match[str]) -> str:
        if place["name"] not in found:
            have = ", ".join(found)
            raise HolismError(
                f"the page wants a table {place['name']!r}, which the results do not have; they have {have}"
            )
        return f"{place['mark']}\n\n{found[place['name']].text}\n"

    return re.sub(r"(?P<mark><!-- table: (?P<name>.+?) -->)\n+(\|.*\n)*", fill, page)


def _shown(costs: pd.Series) -> pd.Series:
    return costs.map(lambda cost: NONE if cost != cost else f"{cost:,.{COSTS[str(costs.name)]}f}")


def _as_markdown(table: pd.DataFrame) -> str:
    lines = [["row", *table.columns], ["---", *("---:" for _ in table.columns)]]
    lines += [[str(row), *values] for row, values in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
