"""Pictures of the study: figures of rows with a dot for each seed, and quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks.study.recipes import rows
from benchmarks.study.table import figures, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("zero-shot", "zero-shot best", "T2I R@1", "T2I best", "T2I own", "mIoU")
QUALITY = {"zero-shot best": "zero-shot accuracy", "T2I best": "text to image R@1"}
COSTS = {"training CPU s": "training, CPU seconds", "bytes, all branches": "index, bytes an image"}


def plot(results: Path, dataset: str, out: Path, against: str | None = None, variant: str = "") -> None:
    """Write the figures of rows on a benchmark as a PNG, or what they differ by from another row, seed by seed."""
    of_runs = _of_variant(results, dataset, variant)
    columns = [name for name in SHOWN if of_runs[name].notna().any()]
    title = f"{dataset}, %: dots are seeds, bars their mean"
    if against is not None:
        paired = of_runs.set_index(["row", "seed"])[columns]
        apart = paired.sub(paired.xs(against, level="row"), level="seed").drop(index=against, level="row")
        of_runs = apart.dropna(how="all").dropna(axis="columns", how="all").reset_index()
        columns = [name for name in columns if name in of_runs]
        title = f"{dataset}, points above {against}, seed by seed"
    names = [name for name in rows() if name in set(of_runs["row"])]

    plt = _pyplot()
    size = (2.4 * len(columns) + 2, 1.2 + 0.28 * len(names))
    figure, axes = plt.subplots(1, len(columns), figsize=size, sharey=True, layout="constrained")
    for axis, column in zip(axes, columns, strict=True):
        _column(axis, of_runs, names, column)
        if against is not None:
            axis.axvline(0, color="tab:orange", linewidth=1)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.suptitle(title)
    figure.savefig(out, dpi=100)
    plt.close(figure)


def plot_costs(results: Path, dataset: str, out: Path) -> None:
    """Write quality, where the best branch answers, against what training and the index cost, as a PNG."""
    of_runs = figures(read(results))
    of_runs = of_runs[of_runs["dataset"] == dataset]
    means = of_runs.groupby("row", sort=False)[[*QUALITY, *COSTS]].mean()

    plt = _pyplot()
    figure, axes = plt.subplots(len(QUALITY), len(COSTS), figsize=(13, 10), sharey="row", layout="constrained")
    for (quality, y), of_quality in zip(QUALITY.items(), axes, strict=True):
        for (cost, x), axis in zip(COSTS.items(), of_quality, strict=True):
            shown = means[[cost, quality]].dropna()
            axis.plot(shown[cost], shown[quality], "o", color="tab:blue")
            for name, (across, up) in shown.iterrows():
                axis.annotate(name, (across, up), (4, 3), textcoords="offset points", fontsize=7)
            axis.set_xscale("log")
            axis.set_xlabel(x)
            axis.set_ylabel(f"{y}, %")
            axis.grid(alpha=0.3)
    figure.suptitle(f"{dataset}: the best branch answers each text; means over seeds")
    figure.savefig(out, dpi=100)
    plt.close(figure)


def _of_variant(results: Path, dataset: str, variant: str) -> pd.DataFrame:
    known = rows()
    of_runs = figures(read(results))
    of_variant = of_runs["row"].map(lambda name: name in known and known[name].variant == variant)
    return of_runs[(of_runs["dataset"] == dataset) & of_variant]


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
