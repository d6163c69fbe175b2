"""Figures of diversity of a corpus, from counts that merge: of the captions that are open in drafts, shard by shard.

Everything is counted in whole numbers (values of images in millionths), so sums do not depend on the order of shards,
and what is kept does not grow with the corpus: means, histograms, and samples of n-grams (see `types`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from captioning.curate.diversity import types
from captioning.curate.diversity.images import ORDERS, cosines, of_images
from captioning.curate.draft import Draft
from captioning.curate.measures.measured import Measured, placed
from captioning.curate.selection.ngrams import Ngrams
from pipeline.identity import digest

BINS = 50  # of similarities between 0 and 1
MILLION = 1_000_000
LONGEST = 200  # words; longer captions are counted there
TYPES = "types_"  # the rows of a sketch: bucket is the hash, total the rank
SCHEMA = pa.schema(
    [
        ("figure", pa.string()),
        ("group", pa.string()),
        ("bucket", pa.int64()),
        ("count", pa.int64()),
        ("total", pa.int64()),
    ]
)


@dataclass
class DiversityFigures:
    """The figures of a corpus. Means are None where no image has enough captions."""

    counts: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    sketches: dict[int, pa.Table] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Images with a caption."""
        return self.counts["images", "", 0]

    @property
    def captions(self) -> int:
        """Captions of all images."""
        return sum(count for (figure, _, _), count in self.counts.items() if figure == "words")

    def mean(self, figure: str) -> float | None:
        """Mean of a figure of images, such as text_similarity, over the images that have it."""
        images = self.counts[figure, "mean", 0]
        return self.totals[figure] / images / MILLION if images else None

    def means(self) -> dict[str, float]:
        """All of them by name."""
        names = sorted({figure for figure, group, _ in self.counts if group == "mean"})
        return {name: mean for name in names if (mean := self.mean(name)) is not None}

    def distribution(self, figure: str) -> np.ndarray:
        """Images by value of a figure between 0 and 1, (BINS,)."""
        return np.array([self.counts[figure, "bin", place] for place in range(BINS)])

    def lengths(self) -> dict[str, np.ndarray]:
        """Captions by number of words, (LONGEST + 1,), by perspective; the last entry holds the longer ones."""
        lengths: dict[str, np.ndarray] = {}
        for (figure, perspective, words), count in sorted(self.counts.items()):
            if figure == "words":
                lengths.setdefault(perspective, np.zeros(LONGEST + 1, np.int64))[words] += count
        return lengths

    def coverage(self) -> dict[str, float]:
        """Share of the images with a caption of each perspective."""
        covered = {name: count for (figure, name, _), count in sorted(self.counts.items()) if figure == "coverage"}
        return {perspective: count / self.images for perspective, count in covered.items()}

    def growth(self, order: int = 1) -> list[tuple[int, float]]:
        """(n-grams, different n-grams) of ever larger random samples of the images; the last is the corpus."""
        if order not in self.sketches:
            return []
        tokens = np.array([self.counts[f"tokens_{order}", "", level] for level in range(types.LEVELS)])
        tokens = tokens[::-1].cumsum()[::-1]
        points = list(zip(tokens.tolist(), types.growth(self.sketches[order]), strict=True))
        return [point for point in reversed(points) if point[0]]

    def distinct(self, order: int) -> float | None:
        """distinct-n of the whole corpus. It falls with the size of a corpus: compare only those of like size."""
        growth = self.growth(order)
        return growth[-1][1] / growth[-1][0] if growth else None

    def heaps(self) -> tuple[float, float] | None:
        """(K, β) of Heaps' law, vocabulary = K · words^β, fitted to the growth from 1,000 words on."""
        points = [point for point in self.growth() if point[0] >= 1000]
        if len(points) < 3:
            return None
        words, kinds = np.log(np.array(points)).T
        slope, intercept = np.polyfit(words, kinds, 1)
        return float(np.exp(intercept)), float(slope)


@dataclass(frozen=True)
class Diversity:
    """The statistic of the figures (see `corpus.statistic`). `embed` brings those that need sentence embeddings."""

    embed: Measured | None = None
    model: str = ""  # digest of the embedding model

    name = "diversity"

    @property
    def digest(self) -> str:
        """Of what decides the counts of a shard."""
        return digest([self.model if self.embed else "", BINS, LONGEST, types.KEPT, types.LEVELS])

    def of_shard(self, draft: Draft) -> pa.Table:
        """Count the open captions of a shard."""
        counts: Counter[tuple[str, str, int]] = Counter()
        totals: Counter[str] = Counter()
        kept: dict[int, list[pa.Table]] = defaultdict(list)
        vectors = self._vectors(draft)
        for block in draft.blocks():
            open_BM = draft.is_open(block.rows_BM)
            rows = block.rows_BM[open_BM].tolist()
            ngrams = Ngrams([draft.words(row) for row in rows])
            figures = of_images(ngrams, open_BM, block.similarity_BMM, cosines(vectors, block.rows_BM))
            for name, value_B in figures.items():
                _count_values(name, value_B[~np.isnan(value_B)], counts, totals)
            _count_captions(draft, rows, counts)
            ranks_T = np.array([types.rank(draft.columns["image_id"][row]) for row in rows], np.int64)
            for order in ORDERS:
                hash_N, text_N = types.hashes(ngrams, order)
                kept[order].append(types.sketch(hash_N, ranks_T[text_N]))
                _count_tokens(order, ranks_T[text_N], counts)
        return _table(counts, totals, {order: _merged(tables) for order, tables in kept.items()})

    def merge(self, tables: Iterator[pa.Table]) -> DiversityFigures:
        """The figures of all shards."""
        figures = DiversityFigures()
        for table in tables:
            sketched = np.char.startswith(table["figure"].to_numpy().astype(str), TYPES)
            for row in table.filter(pa.array(~sketched)).to_pylist():
                figures.counts[row["figure"], row["group"], row["bucket"]] += row["count"]
                figures.totals[row["figure"]] += row["total"]
            for order in ORDERS:
                mine = table.filter(pa.array(table["figure"].to_numpy() == f"{TYPES}{order}"))
                fresh = pa.table([mine["bucket"], mine["total"]], schema=types.SCHEMA)
                known = figures.sketches.get(order)
                figures.sketches[order] = _merged([fresh] if known is None else [known, fresh])
        return figures

    def _vectors(self, draft: Draft) -> np.ndarray | None:
        """Embeddings of the rows that blocks hold, at their places."""
        rows = [row for block in draft.blocks() for row in block.rows_BM[draft.is_open(block.rows_BM)].tolist()]
        return placed(self.embed, draft, rows)


def _count_values(name: str, values: np.ndarray, counts: Counter[tuple[str, str, int]], totals: Counter[str]) -> None:
    counts[name, "mean", 0] += len(values)
    totals[name] += int(np.rint(values.astype(np.float64) * MILLION).astype(np.int64).sum())
    for place, count in Counter(np.clip(values * BINS, 0, BINS - 1).astype(int).tolist()).items():
        counts[name, "bin", place] += count


def _count_captions(draft: Draft, rows: list[int], counts: Counter[tuple[str, str, int]]) -> None:
    keys, perspectives = draft.columns["key"], draft.columns["perspective"]
    for row in rows:
        counts["words", perspectives[row], min(len(draft.words(row)), LONGEST)] += 1
    for _, perspective in {(keys[row], perspectives[row]) for row in rows}:
        counts["coverage", perspective, 0] += 1
    counts["images", "", 0] += len({keys[row] for row in rows})


def _count_tokens(order: int, rank_N: np.ndarray, counts: Counter[tuple[str, str, int]]) -> None:
    """N-grams by the deepest level of growth that their image belongs to."""
    for level in range(types.LEVELS):
        below = int((rank_N < 2 ** (types.BITS - level)).sum())
        deeper = int((rank_N < 2 ** (types.BITS - level - 1)).sum()) if level < types.LEVELS - 1 else 0
        counts[f"tokens_{order}", "", level] += below - deeper


def _merged(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    return types.sketch(table["hash"].to_numpy(), table["rank"].to_numpy())


def _table(
    counts: Mapping[tuple[str, str, int], int], totals: Mapping[str, int], sketches: Mapping[int, pa.Table]
) -> pa.Table:
    rows = [
        (figure, group, bucket, count, totals.get(figure, 0) if group == "mean" else 0)
        for (figure, group, bucket), count in sorted(counts.items())
    ]
    plain = pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * len(SCHEMA), schema=SCHEMA)
    parts = [
        pa.table(
            [
                pa.array([f"{TYPES}{order}"] * len(sketch)),
                pa.array([""] * len(sketch)),
                sketch["hash"],
                pa.array([1] * len(sketch), pa.int64()),
                sketch["rank"],
            ],
            schema=SCHEMA,
        )
        for order, sketch in sorted(sketches.items())
    ]
    return pa.concat_tables([plain, *parts])
