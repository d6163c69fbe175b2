"""Bootstrap intervals: how far a figure would move on another draw of the same kind of images or queries.

All statistics over the same n units are resampled with the same seeded draws. So the difference of two models,
measured on the same queries, is a paired difference: subtract their replicates and take the interval of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CONFIDENCE = 0.95
AT_A_TIME = 2**24  # draws that are held as floats
DEVIATIONS = 7  # how far from the middle a median of resamples may lie, in standard deviations


def replicates(outcome_N: np.ndarray, *, samples: int, seed: int, group_N: np.ndarray | None = None) -> np.ndarray:
    """The statistic on each resample, (samples,), or (samples, X) of outcomes (N, X).

    The statistic is the mean of the outcomes, or, given `group_N` (class index of each unit), the mean over groups
    of the group means; a group that a resample misses is left out of that resample.
    """
    value_N = outcome_N.astype(np.float32)
    if group_N is None:
        return _drawn(value_N, samples, seed) / len(value_N)
    order_N = np.argsort(group_N, kind="stable")
    begin_G = np.unique(group_N[order_N], return_index=True)[1]
    weight_SN = _weights(len(value_N), samples, seed)
    mean_S, step = np.empty(samples), max(1, AT_A_TIME // len(value_N))
    for start in range(0, samples, step):
        weight_sN = weight_SN[start : start + step, order_N].astype(np.float32)
        count_sG = np.add.reduceat(weight_sN, begin_G, axis=1)
        total_sG = np.add.reduceat(weight_sN * value_N[order_N], begin_G, axis=1)
        mean_sG = np.divide(total_sG, count_sG, out=np.full_like(total_sG, np.nan), where=count_sG > 0)
        mean_S[start : start + step] = np.nanmean(mean_sG, axis=1)
    return mean_S


def statistic(outcome_N: np.ndarray, group_N: np.ndarray | None = None) -> float:
    """The statistic itself: mean, or mean over groups of the group means."""
    if group_N is None:
        return float(outcome_N.mean())
    _, place_N, count_G = np.unique(group_N, return_inverse=True, return_counts=True)
    return float(np.mean(np.bincount(place_N, outcome_N) / count_G))


@dataclass(frozen=True)
class MeanEstimate:
    """A figure that is the mean of outcomes (or, given `group_N`, of the means of groups of them)."""

    outcome_N: np.ndarray
    group_N: np.ndarray | None = None

    @property
    def n(self) -> int:
        """Number of outcomes."""
        return len(self.outcome_N)

    @property
    def value(self) -> float:
        """The mean."""
        return statistic(self.outcome_N, self.group_N)

    def replicates(self, *, samples: int, seed: int) -> np.ndarray:
        """The mean on each resample, (samples,)."""
        return replicates(self.outcome_N, samples=samples, seed=seed, group_N=self.group_N)


@dataclass(frozen=True)
class MedianEstimate:
    """A figure that is the median of values: the least that half of them do not exceed."""

    value_N: np.ndarray

    @property
    def n(self) -> int:
        """Number of values."""
        return len(self.value_N)

    @property
    def value(self) -> float:
        """The median."""
        return float(np.sort(self.value_N)[(self.n - 1) // 2])

    def replicates(self, *, samples: int, seed: int) -> np.ndarray:
        """The median on each resample, (samples,).

        Medians of resamples lie near the middle of the sorted values, so only values there are tried (all, of few).
        """
        middle, reach = self.n // 2, int(DEVIATIONS * np.sqrt(self.n) / 2) + 1
        sorted_N = np.sort(self.value_N)
        tried_K = np.unique(np.r_[sorted_N[max(0, middle - reach) : middle + reach], sorted_N[-1]])
        share_SK = _drawn((self.value_N[:, None] <= tried_K).astype(np.float32), samples, seed)
        return np.asarray(tried_K[(2 * share_SK >= self.n).argmax(axis=1)], dtype=np.float64)


def interval(replicate_S: np.ndarray) -> tuple[float, float]:
    """The central 95 % of the replicates (percentile bootstrap)."""
    low, high = np.quantile(replicate_S, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _drawn(value_NX: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Sums over the units of each resample, (samples, ...), a few resamples at a time."""
    weight_SN = _weights(len(value_NX), samples, seed)
    step = max(1, AT_A_TIME // len(value_NX))
    return np.concatenate([weight_SN[i : i + step].astype(np.float32) @ value_NX for i in range(0, samples, step)])


@lru_cache(maxsize=4)
def _weights(n: int, samples: int, seed: int) -> np.ndarray:
    """How often each unit is drawn in each resample, (samples, n); every row sums to n.

    In bytes: that a unit is drawn more than 255 times happens in no run.
    """
    rng = np.random.default_rng([seed, n])
    weight_SN = np.empty((samples, n), dtype=np.uint8)
    for row in weight_SN:
        row[:] = np.bincount(rng.integers(n, size=n), minlength=n)
    return weight_SN
