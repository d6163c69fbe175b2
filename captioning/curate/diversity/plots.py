"""Plots of figures of diversity, for several sets of captions side by side; as SVG for pages, as PNG for documents."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from captioning.curate.diversity.figures import BINS, DiversityFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#2b5c8a", "#c77d2e", "#5b8c5a", "#8a4b76", "#4aa3a2", "#a33b3b")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "holism",
}
Sets = Mapping[str, DiversityFigures]
SIMILARITIES = {"text_similarity": "text similarity (cosine of meaning)", "lexical_similarity": "similarity of words"}


def similarity(sets: Sets) -> Figure:
    """How images are spread over the similarity of their captions."""
    names = [name for name in SIMILARITIES if any(figures.mean(name) is not None for figures in sets.values())]
    figure, axes = _canvas(1, max(len(names), 1), 3.0)
    edges = np.linspace(0, 1, BINS + 1)
    for axis, name in zip(axes, names, strict=False):
        for colour, (label, figures) in zip(PALETTE, sets.items(), strict=False):
            mean = figures.mean(name)
            if mean is not None:
                share = figures.distribution(name) / max(figures.distribution(name).sum(), 1)
                axis.stairs(share, edges, color=colour, label=f"{label}: {mean:.2f}", fill=True, alpha=0.25)
                axis.stairs(share, edges, color=colour)
                axis.axvline(mean, color=colour, linewidth=1, linestyle=":")
        axis.set(title=f"Mean {SIMILARITIES[name]} within an image", xlim=(0, 1), ylabel="share of images")
        axis.legend(title="mean")
    return figure


def lengths(sets: Sets) -> Figure:
    """Words of the captions, by perspective."""
    lengths = {label: figures.lengths() for label, figures in sets.items()}
    perspectives = sorted({perspective for by in lengths.values() for perspective in by})
    columns = min(4, max(len(perspectives), 1))
    figure, axes = _canvas(-(-max(len(perspectives), 1) // columns), columns, 1.7)
    longest = max((int(np.flatnonzero(count).max()) for by in lengths.values() for count in by.values()), default=1)
    for axis, perspective in zip(axes, perspectives, strict=False):
        for colour, by in zip(PALETTE, lengths.values(), strict=False):
            if perspective in by:
                share = by[perspective] / by[perspective].sum()
                axis.stairs(share, np.arange(len(share) + 1) - 0.5, color=colour)
        axis.set(title=perspective.replace("_", " "), xlim=(0, longest + 1), yticks=[])
    for axis in axes[len(perspectives) :]:
        axis.set_visible(False)
    figure.supxlabel("words of a caption", fontsize=9)
    _legend(figure, sets)
    return figure


def growth(sets: Sets) -> Figure:
    """Different words and word pairs among the words of ever more images."""
    figure, axes = _canvas(1, 2, 3.0)
    for axis, order, name in zip(axes, (1, 2), ("words", "word pairs"), strict=True):
        for colour, (label, figures) in zip(PALETTE, sets.items(), strict=False):
            if points := figures.growth(order):
                axis.plot(*np.array(points).T, color=colour, marker="o", markersize=3, label=label)
        axis.set(xscale="log", yscale="log", title=f"Different {name}", xlabel=f"{name} so far")
        axis.legend()
    return figure


def coverage(sets: Sets) -> Figure:
    """Which share of the images has a caption of each perspective."""
    covered = {label: figures.coverage() for label, figures in sets.items()}
    perspectives = sorted({perspective for by in covered.values() for perspective in by}, reverse=True)
    figure, axes = _canvas(1, 1, 0.6 + 0.13 * len(perspectives) * (len(sets) + 1))
    height = 1 / (len(sets) + 1)
    for place, (colour, by) in enumerate(zip(PALETTE, covered.values(), strict=False)):
        at = np.arange(len(perspectives)) + (len(sets) / 2 - place - 0.5) * height
        axes[0].barh(at, [100 * by.get(perspective, 0.0) for perspective in perspectives], height, color=colour)
    axes[0].set(xlim=(0, 100), xlabel="% of the images with a caption", title="Perspectives")
    axes[0].set_yticks(np.arange(len(perspectives)), [name.replace("_", " ") for name in perspectives])
    _legend(figure, sets)
    return figure


PLOTS: Mapping[str, Callable[[Sets], Figure]] = {
    "similarity": similarity,
    "lengths": lengths,
    "growth": growth,
    "coverage": coverage,
}


def svg(plot: Callable[[Sets], Figure], sets: Sets) -> str:
    """A plot as an SVG element to be put into a page."""
    sink = io.StringIO()
    _draw(plot, sets).savefig(sink, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", sink.getvalue(), flags=re.DOTALL)


def png(plot: Callable[[Sets], Figure], sets: Sets) -> bytes:
    """A plot as the bytes of a PNG file."""
    sink = io.BytesIO()
    _draw(plot, sets).savefig(sink, format="png", dpi=110)
    return sink.getvalue()


def _draw(plot: Callable[[Sets], Figure], sets: Sets) -> Figure:
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        return plot(sets)


def _canvas(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure without pyplot, which would keep every one of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, height * rows + 0.3), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _legend(figure: Figure, sets: Sets) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, label=label) for colour, label in zip(PALETTE, sets, strict=False)]
    figure.legend(handles=lines, loc="outside upper right", ncols=len(lines))
