"""Tables of the study in Markdown: means over seeds, standard errors, paired differences, costs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks.study.figures import COSTS, NAMES, figures, read
from benchmarks.study.recipes import rows, variants
from pipeline.errors import HolismError

NONE = "–"  # of results that lack a figure
EQUAL = 1e-9  # points: a standard error that is rounding alone


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
        return f"{text} (p {ttest_1samp(values, 0).pvalue:.2f})" if values.sem() > EQUAL else text

    return difference.groupby("row", sort=False).agg(shown)


@dataclass(frozen=True)
class Table:
    """A table as Markdown, with what it is called."""

    title: str
    text: str


def tables(results: Path, against: str = "o2m") -> dict[str, Table]:
    """All tables of the results in a folder or file, rows in the order of rows.yaml, those of a variant together.

    They are called DATASET, DATASET differences and costs, with the variant behind: `known`, `known differences`,
    `develop 16`, `costs 16`; `rows` says what the rows are. Each row is compared with the row `against` of its own
    variant, or with the main one where the variant has none. What rows.yaml does not have is left out. Costs are means
    over all runs of a row.
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
    found["rows"] = Table("The rows", _as_markdown(_described(), align="---"))
    return found


def _described() -> pd.DataFrame:
    """What rows are, then what the ends of their names mean."""
    says = {name: row.says for name, row in rows().items() if not row.variant}
    says |= {f"ROW_{variant}": f"as ROW: {text}" for variant, text in variants().items() if variant}
    return pd.DataFrame({"is": says})


def markdown(results: Path, against: str = "o2m") -> str:
    """All tables below each other."""
    return "\n".join(f"### {table.title}\n\n{table.text}\n" for table in tables(results, against).values())


def fill(file: Path, results: Path) -> None:
    """Fill in a file's tables. Raises HolismError where it is not there, or wants what results do not have."""
    if not file.is_file():
        raise HolismError(f"{file} is not there; name a page of Markdown with lines <!-- table: NAME -->")
    file.write_text(filled(file.read_text(), results))


def filled(page: str, results: Path) -> str:
    """A page whose tables are those of the results: each stands below a line `<!-- table: NAME -->`.

    Raises HolismError where results have no table of a name.
    """
    found = tables(results)

    def put(place: re.Match[str]) -> str:
        if place["name"] not in found:
            have = ", ".join(found)
            raise HolismError(
                f"the page wants a table {place['name']!r}, which the results do not have; they have {have}"
            )
        return f"{place['mark']}\n\n{found[place['name']].text}\n"

    return re.sub(r"(?P<mark><!-- table: (?P<name>.+?) -->)\n*(\|.*(\n|$))*", put, page)


def _shown(costs: pd.Series) -> pd.Series:
    return costs.map(lambda cost: NONE if cost != cost else f"{cost:,.{COSTS[str(costs.name)]}f}")


def _as_markdown(table: pd.DataFrame, align: str = "---:") -> str:
    lines = [["row", *table.columns], ["---", *(align for _ in table.columns)]]
    lines += [[str(row), *values] for row, values in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
