"""Turns held-out scenes into a benchmark folder that `evaluate` reads (docs/architecture.md).

The exact truth decides which images a caption is true for, so a query like "a beach in the background" is answered by
every beach. Claims and facts are sets, so relevance of all queries is a few products of small boolean columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.demo_world.alt_text import true_alt_texts
from pipeline.demo_world.choices import choice_rows
from pipeline.demo_world.facts import CLASSES, TEMPLATES, Fact, Truth, claims, facts, labels
from pipeline.demo_world.language import answers
from pipeline.demo_world.regions import SEGMENTATION

# The default training slots that are captions; `alt_text` comes on top. The dozen backgrounds and styles are asked in
# every wording, the others, of which there are hundreds, in the canonical one.
PERSPECTIVES = ("detail", "sentence", "phrase", "nouns", "main_object", "background", "style")
WORDINGS = {"background": 3, "style": 3}
RELEVANCE = (
    "Every scene for which the caption is true counts as relevant, by the exact truth the scenes were rendered from. "
    "A text written for several scenes is one query. What a style hides (a colour in a sepia photo) is true of none."
)
# What the web's alt texts claim, by what they name.
_ALT_CLAIMS = {
    "object": ("main",),
    "colored": ("main", "main color"),
    "placed": ("main", "background"),
    "styled": ("main", "style"),
}


def write_benchmark(
    folder: Path, files: Sequence[str], truths: Sequence[Truth], name: str = "demo_world", split: str = "heldout"
) -> None:
    """Write the tables and benchmark.yaml into `folder`: `images/` hold the files, `masks/` their label masks."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    rows = [{"file": file, **labels(t)} for file, t in zip(files, truths, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet", compression="zstd")
    pq.write_table(pa.Table.from_pylist(query_rows(files, truths)), folder / "queries.parquet", compression="zstd")
    if choices := choice_rows(files, truths):
        pq.write_table(pa.Table.from_pylist(choices), folder / "choices.parquet", compression="zstd")
    tasks = {task: {"classes": list(CLASSES[task]), "templates": list(TEMPLATES[task])} for task in CLASSES}
    asked = {"classification": tasks, "segmentation": SEGMENTATION}
    spec = {"name": name, "split": split, "relevance": RELEVANCE, **asked}
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(spec, sort_keys=False, width=110), encoding="utf8")


def query_rows(files: Sequence[str], truths: Sequence[Truth]) -> list[dict[str, Any]]:
    """One row per distinct text of a perspective, with every file it is true for."""
    holding = _Holding(truths)
    rows: list[dict[str, Any]] = []
    for perspective in (*PERSPECTIVES, "alt_text"):
        distinct: dict[str, frozenset[Fact]] = {}
        for t in truths:
            distinct |= dict(_queries(t, perspective))
        for number, (text, claimed) in enumerate(distinct.items()):
            relevant = [files[index] for index in holding.scenes(claimed)]
            query_id = f"{perspective}-{number:04d}"
            rows.append({"query_id": query_id, "perspective": perspective, "text": text, "relevant": relevant})
    return rows


def _queries(t: Truth, perspective: str) -> Iterator[tuple[str, frozenset[Fact]]]:
    """The texts that a scene contributes, each with what it claims."""
    if perspective == "alt_text":
        for kind, text in true_alt_texts(t).items():
            yield text, frozenset(fact for fact in facts(t) if fact[0] in _ALT_CLAIMS[kind])
        return
    claimed = claims(t, perspective)
    for text in answers(t, perspective)[: WORDINGS.get(perspective, 1)]:
        yield text, claimed


class _Holding:
    """For each fact, the scenes in which it holds, as a boolean column."""

    def __init__(self, truths: Sequence[Truth]) -> None:
        self._count = len(truths)
        self._columns: dict[Fact, np.ndarray] = {}
        for index, t in enumerate(truths):
            for fact in facts(t):
                self._columns.setdefault(fact, np.zeros(self._count, bool))[index] = True

    def scenes(self, claimed: frozenset[Fact]) -> np.ndarray:
        """Indices of the scenes in which all of these facts hold."""
        return np.flatnonzero(np.logical_and.reduce([self._columns[fact] for fact in claimed]))
