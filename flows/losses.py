"""The losses of trained runs, and what was measured on the way, from their metrics: as a picture and as a table."""

from __future__ import annotations

import base64
import io
from typing import Any

from evaluation import curves
from pipeline.manifest import Manifest

PALETTE = ("#2b5c8a", "#c77d2e", "#5b8c5a", "#8a4b76", "#4aa3a2", "#a33b3b")


def picture(manifest: Manifest) -> str:
    """The curves of all runs as a PNG in a data URI: the loss, and below it each figure of evaluations."""
    from matplotlib.figure import Figure

    charts = curves.charts(curves.read(manifest))
    rows = max(1, len(charts))
    figure = Figure(figsize=(7.2, 3.2 * rows), layout="constrained")
    for axes, chart in zip(figure.subplots(rows, squeeze=False)[:, 0], charts, strict=False):
        for index, (run, points) in enumerate(chart.lines.items()):
            if points:
                axes.plot(*zip(*points, strict=True), label=run, color=PALETTE[index % len(PALETTE)], linewidth=1.4)
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel(chart.title)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def table(manifest: Manifest) -> list[dict[str, Any]]:
    """A row for each run: its figures, and the last loss of each term."""
    rows = []
    for name, summary in manifest.counts.items():
        terms = {f"loss {term}": value for term, value in summary.get("terms", {}).items()}
        figures = {key.replace("_", " "): value for key, value in summary.items() if key not in ("terms", "best")}
        best = {f"best {summary['best']['figure']}": summary["best"]["value"]} if "best" in summary else {}
        rows.append({"run": name, **figures, **terms, **best})
    return rows
