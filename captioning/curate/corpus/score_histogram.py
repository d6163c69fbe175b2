"""How image-text scores are spread over the corpus, by perspective: what a quantile threshold is read from.

Scores of style captions and of noun lists lie in different ranges, so one value for all would mean something else to
each. Counts in bins can be merged, whatever the shards; the price is that a threshold is exact to one bin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from captioning.curate.draft import Draft
from captioning.curate.gadgets.ground import GroundConfig, Threshold
from captioning.curate.measures.measured import Measured

BINS = 4096  # over the cosines, -1 to 1: a bin is half a thousandth wide
SCHEMA = pa.schema([("perspective", pa.string()), ("bin", pa.int32()), ("captions", pa.int64())])

Histograms = Mapping[str, tuple[tuple[int, int], ...]]  # perspective → (bin, captions), ascending; empty bins left out


@dataclass(frozen=True)
class ScoreHistogram:
    """Counts the open captions of each perspective by score, `imported` ones too if these are judged by it.

    `digest` is that of the model that scores, and of what is counted.
    """

    measured: Measured
    digest: str
    imported: bool = True

    name = "score_histogram"

    def of_shard(self, draft: Draft) -> pa.Table:
        """Counts of one shard; captions that cannot be scored are left out."""
        with draft.setting_aside(frozenset() if self.imported else draft.imported):
            rows = list(draft.open_rows())
        scores, perspectives = self.measured(draft, rows), draft.columns["perspective"]
        counts: dict[tuple[str, int], int] = {}
        for row, place in zip(rows, bins(scores).tolist(), strict=True):
            if place >= 0:
                key = (perspectives[row], place)
                counts[key] = counts.get(key, 0) + 1
        return pa.Table.from_pylist(
            [{"perspective": name, "bin": place, "captions": n} for (name, place), n in sorted(counts.items())], SCHEMA
        )

    def merge(self, tables: Iterator[pa.Table]) -> Histograms:
        """The histograms of the corpus."""
        total: dict[str, np.ndarray] = {}
        for table in tables:
            for row in table.to_pylist():
                counts = total.setdefault(row["perspective"], np.zeros(BINS, np.int64))
                counts[row["bin"]] += row["captions"]
        return {
            name: tuple((int(place), int(counts[place])) for place in np.flatnonzero(counts))
            for name, counts in sorted(total.items())
        }


def bins(scores: np.ndarray) -> np.ndarray:
    """The bin of each score; -1 for NaN."""
    exact = np.nan_to_num(scores).astype(np.float64)
    places = np.clip(np.floor((exact + 1) / 2 * BINS), 0, BINS - 1).astype(np.int64)
    places -= exact < edge(places)  # what rounding has lifted over it
    return np.where(np.isnan(scores), -1, np.maximum(places, 0))


def edge(place: Any) -> Any:
    """The lowest score of a bin."""
    return place / BINS * 2 - 1


def thresholds(config: GroundConfig, histograms: Histograms) -> dict[str, float]:
    """The lowest score to keep, by perspective; with '' the one of perspectives that have none of their own."""
    names = sorted({*histograms, *config.perspectives})
    limits = {
        name: _limit(config.perspectives.get(name, config.threshold), histograms.get(name, ())) for name in names
    }
    return limits if config.threshold.value is None else {"": config.threshold.value, **limits}


def needs_histograms(config: GroundConfig) -> bool:
    """Whether any threshold is a quantile."""
    return any(threshold.quantile is not None for threshold in (config.threshold, *config.perspectives.values()))


def _limit(threshold: Threshold, counts: tuple[tuple[int, int], ...]) -> float:
    """The value itself, or the lower edge of the bin that the quantile lies in: no more than the share lies below."""
    if threshold.value is not None:
        return threshold.value
    assert threshold.quantile is not None
    allowed, below = threshold.quantile * sum(captions for _, captions in counts), 0
    for place, captions in counts:
        below += captions
        if below > allowed:
            return float(edge(place))
    return -1.0
