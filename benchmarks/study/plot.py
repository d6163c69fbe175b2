"""Pictures of the study: figures of rows with a dot for each seed, and quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks.study.figures import figures, read
from benchmarks.study.recipes import CLIP, rows
from pipeline.errors import HolismError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("zero-shot", "zero-shot best", "zero-shot own", "T2I R@1", "T2I best", "T2I own")
QUALITY = {"zero-shot best": "zero-shot accuracy", "T2I best": "text to image R@1"}
COST = "training CPU s"
MARKS = "osD^v*P"  # with ten colours, 70 rows that look different
NEAR = 5.0  # points up to which an axis of differences is linear; beyond it is logarithmic


def plot(results: Path, dataset: str, out: Path, against: str | None = None, variant: str = "") -> None:
    """Write the figures of rows on a benchmark as a PNG, or what they differ by from another row, seed by seed.

    Raises HolismError where there are no such results.
    """
    of_runs = _of(results, dataset)
    of_runs = of_runs[of_runs["row"].map(lambda name: rows()[name].variant == variant)]
    title = f"{dataset}, %: dots are seeds, bars their mean"
    if against is not None:
        base = f"{against}_{variant}" if variant else against
        of_runs, title = _above(of_runs, base), f"{dataset}, points above {base}, seed by seed"
    columns = [name for name in SHOWN if name in of_runs and of_runs[name].notna().any()]
    names = [name for name in rows() if name in set(of_runs["row"])]
    if not names:
        raise HolismError(f"no results of such rows on {dataset} in {results}; run them first")

    plt = _pyplot()
    size = (2.4 * len(columns) + 2, 1.2 + 0.28 * len(names))
    figure, axes = plt.subplots(1, len(columns), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, column in zip(axes[0], columns, strict=True):
        _column(axis, of_runs, names, column)
        if against is not None:
            axis.axvline(0, color="tab:orange", linewidth=1)
            axis.set_xscale("symlog", linthresh=NEAR)
            axis.set_xticks([-50, -NEAR, 0, NEAR], ["−50", "−5", "0", "5"])
            axis.minorticks_off()
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)  # the first row on top
    figure.suptitle(title)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def plot_costs(results: Path, dataset: str, out: Path) -> None:
    """Write quality, where the best branch answers, against what training costs, as a PNG.

    Of all rows, whatever their variant, that start from a CLIP of alt texts. Raises HolismError where there are none.
    """
    of_runs = _of(results, dataset)
    of_runs = of_runs[of_runs["row"].map(lambda name: rows()[name].start == CLIP)]
    means = of_runs.groupby("row", sort=False)[[*QUALITY, COST]].mean().dropna()
    if means.empty:
        raise HolismError(f"no results with costs on {dataset} in {results}; run rows first")

    plt = _pyplot()
    figure, axes = plt.subplots(1, len(QUALITY), figsize=(13, 5), layout="constrained")
    for (quality, y), axis in zip(QUALITY.items(), axes, strict=True):
        for number, (name, (across, up)) in enumerate(means[[COST, quality]].iterrows()):
            axis.plot(across, up, MARKS[number % len(MARKS)], color=f"C{number % 10}", markersize=8, label=name)
        axis.set_xlabel("training, CPU seconds")
        axis.set_ylabel(f"{y}, %")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(f"{dataset}: the best branch answers each text; means over seeds")
    figure.savefig(out, dpi=100)
    plt.close(figure)


def _of(results: Path, dataset: str) -> pd.DataFrame:
    """Figures of the rows that rows.yaml has, on one benchmark. Raises HolismError where there are none."""
    of_runs = figures(read(results))
    found = of_runs[(of_runs["dataset"] == dataset) & of_runs["row"].isin(rows())]
    if found.empty:
        raise HolismError(f"no results of such rows on {dataset} in {results}; run them first")
    return found


def _above(of_runs: pd.DataFrame, base: str) -> pd.DataFrame:
    """Differences to another row, seed by seed, of the seeds that both have."""
    if base not in set(of_runs["row"]):
        raise HolismError(f"row {base} has no results here; expected one of {', '.join(sorted(set(of_runs['row'])))}")
    figures_of = of_runs.set_index(["row", "seed"])[list(SHOWN)]
    apart = figures_of.sub(figures_of.xs(base, level="row"), level="seed").drop(index=base, level="row")
    return apart.dropna(how="all").reset_index()


def _column(axis: Axes, of_runs: pd.DataFrame, names: Sequence[str], column: str) -> None:
    for place, name in enumerate(names):
        found = of_runs.loc[of_runs["row"] == name, column].dropna()
        axis.plot(found, [place] * len(found), "o", color="tab:blue", markersize=4, alpha=0.6)
        axis.plot([found.mean()], [place], "|", color="black", markersize=12)
    axis.set_title(column, fontsize=10)
    axis.grid(axis="x", alpha=0.3)


def _pyplot() -> Any:
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    return plt
