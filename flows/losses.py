"""The losses of trained runs, read from their metrics: as a picture and as a table."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

from pipeline.manifest import Manifest
from pipeline.storage import Location

PALETTE = ("#2b5c8a", "#c77d2e", "#5b8c5a", "#8a4b76", "#4aa3a2", "#a33b3b")
MOST_POINTS = 500  # of one curve


def curves(manifest: Manifest) -> dict[str, list[tuple[int, float]]]:
    """(step, loss) of every run; of long runs each point is the mean of several steps."""
    averaged = {}
    for name, run in manifest.detail["runs"].items():
        folder = run["folder"].rpartition("/")[0]
        lines = (Location.of(manifest.store) / folder / "metrics.jsonl").read().splitlines()
        rows = [(row["step"], row["loss"]) for row in map(json.loads, lines)]
        together = -(-len(rows) // MOST_POINTS)
        groups = [rows[start : start + together] for start in range(0, len(rows), max(1, together))]
        averaged[name] = [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
    return averaged


def picture(curves: Mapping[str, list[tuple[int, float]]]) -> str:
    """The curves as a PNG in a data URI."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    axes = figure.subplots()
    for index, (name, points) in enumerate(curves.items()):
        steps, losses = zip(*points, strict=True)
        axes.plot(steps, losses, label=name, color=PALETTE[index % len(PALETTE)], linewidth=1.4)
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("loss")
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
        figures = {key.replace("_", " "): value for key, value in summary.items() if key != "terms"}
        rows.append({"run": name, **figures, **terms})
    return rows
