"""A picture of the study: a line for each row, a dot for each seed, a mark at their mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.study.recipes import rows
from benchmarks.study.table import figures, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = ("zero-shot", "zero-shot best", "T2I R@1", "T2I best", "T2I own")


def plot(results: Path, dataset: str, out: Path) -> None:
    """Write the figures of all rows that were measured on a benchmark as a PNG."""
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")

    of_runs = figures(read(results))
    of_runs = of_runs[of_runs["dataset"] == dataset]
    names = [name for name in rows() if name in set(of_runs["row"])]
    figure, axes = plt.subplots(
        1, len(SHOWN), figsize=(14, 1.2 + 0.28 * len(names)), sharey=True, layout="constrained"
    )
    for axis, column in zip(axes, SHOWN, strict=True):
        _column(axis, of_runs, names, column)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.suptitle(f"{dataset} scenes, %: dots are seeds, bars their mean")
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _column(axis: Axes, of_runs: pd.DataFrame, names: list[str], column: str) -> None:
    for place, name in enumerate(names):
        found = of_runs.loc[of_runs["row"] == name, column].dropna()
        axis.plot(found, [place] * len(found), "o", color="tab:blue", markersize=4, alpha=0.6)
        axis.plot([found.mean()], [place], "|", color="black", markersize=12)
    axis.set_title(column, fontsize=10)
    axis.grid(axis="x", alpha=0.3)
