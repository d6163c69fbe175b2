"""Where right answers stand among all candidates, and what follows: recall@k, median rank, average precision.

Of each right answer it is known how many candidates are better and how many are as good. Candidates of equal score
have no order: each figure is the mean over all orders that they could have come in, so a model that gives everything
the same score reaches chance, and not what the order of files happens to give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EULER = 0.57721566490153286
EXACT = 64  # terms of a harmonic number that are summed; beyond, its series is exact to 13 digits


@dataclass(frozen=True)
class Standing:
    """Where the best right answer of each query stands; only of queries that have a right answer at all."""

    above_Q: np.ndarray  # candidates that are better
    tied_Q: np.ndarray  # candidates that are as good, itself among them
    right_Q: np.ndarray  # right answers among those

    def hits(self, ks: Sequence[int]) -> dict[int, np.ndarray]:
        """For each k, the chance of each query to find a right answer among its first k."""
        return {k: 1 - miss(self.right_Q, self.tied_Q, k - self.above_Q) for k in ks}

    def rank_Q(self) -> np.ndarray:
        """The expected rank of each query's first right answer, from 1."""
        return np.asarray(self.above_Q + (self.tied_Q + 1) / (self.right_Q + 1))


@dataclass(frozen=True)
class Ranks:
    """A row for each right pair, by query."""

    query_P: np.ndarray  # ascending
    above_P: np.ndarray  # candidates that are better
    tied_P: np.ndarray  # candidates that are as good, itself among them

    def best(self) -> Standing:
        """The best right answer of each query."""
        begin_Q = _beginnings(self.query_P)
        above_Q = np.minimum.reduceat(self.above_P, begin_Q) if len(begin_Q) else self.above_P
        number_P = np.cumsum(np.isin(np.arange(len(self.query_P)), begin_Q)) - 1
        first_P = self.above_P == above_Q[number_P]
        right_Q = np.bincount(number_P[first_P], minlength=len(begin_Q))
        tied_Q = np.zeros(len(begin_Q), dtype=self.tied_P.dtype)
        tied_Q[number_P[first_P]] = self.tied_P[first_P]
        return Standing(above_Q, tied_Q, right_Q)

    def precision(self, first_Q: np.ndarray) -> np.ndarray:
        """Of each query, (Q,): the share of right answers among its first `first_Q` candidates.

        R-precision, where that is the number of its right answers.
        """
        number_P = np.cumsum(np.r_[False, np.diff(self.query_P) != 0])
        among_P = np.clip(first_Q[number_P] - self.above_P, 0, self.tied_P)
        return np.asarray(np.bincount(number_P, among_P / self.tied_P, minlength=len(first_Q)) / first_Q)

    def average_precision(self, first_Q: np.ndarray | None = None) -> np.ndarray:
        """Of each query that has a right answer, (Q,): the mean over its right answers of the precision at their rank.

        Given `first_Q`, only those among its first `first_Q` candidates count, and the sum is divided by that: mAP@R
        (Musgrave, Belongie and Lim, 2020, section 3.2), where it is the number of right answers.

        Among n candidates of equal score of which r are right, after A better ones of which R are right, the one at
        place i is right with chance r / n, and then R + 1 + (i − 1)(r − 1)/(n − 1) of the A + i so far are.
        """
        order_P = np.lexsort((self.above_P, self.query_P))
        query_P, above_P, tied_P = self.query_P[order_P], self.above_P[order_P], self.tied_P[order_P]
        place_P = np.arange(len(query_P))
        begin_Q = _beginnings(query_P)
        number_P = np.cumsum(np.isin(place_P, begin_Q)) - 1
        group_P = np.cumsum(np.r_[True, (np.diff(query_P) != 0) | (np.diff(above_P) != 0)]) - 1
        right_P = np.bincount(group_P)[group_P]
        before_P = place_P[np.searchsorted(group_P, group_P)] - begin_Q[number_P]  # right ones that are better
        slope_P = (right_P - 1) / np.maximum(tied_P - 1, 1)
        counts_Q = np.bincount(number_P, minlength=len(begin_Q)) if first_Q is None else first_Q
        among_P = tied_P if first_Q is None else np.clip(first_Q[number_P] - above_P, 0, tied_P)
        apart_P = harmonic(above_P + among_P) - harmonic(above_P)
        mean_P = slope_P * (among_P / tied_P) + (before_P + 1 - slope_P * (above_P + 1)) * apart_P / tied_P
        return np.asarray(np.bincount(number_P, mean_P, minlength=len(begin_Q)) / counts_Q)


def miss(right_Q: np.ndarray, among_Q: np.ndarray, draws_Q: np.ndarray) -> np.ndarray:
    """The probability that so many draws without replacement hold no right one: C(N-r, k) / C(N, k)."""
    miss_Q = np.ones(len(right_Q))
    for drawn in range(int(np.minimum(draws_Q, among_Q).max(initial=0))):
        left_Q = np.maximum(among_Q - drawn, 1)
        share_Q = np.clip((left_Q - right_Q) / left_Q, 0, 1)
        miss_Q *= np.where((drawn < draws_Q) & (drawn < among_Q), share_Q, 1)
    return miss_Q


def harmonic(number_P: np.ndarray) -> np.ndarray:
    """1 + 1/2 + … + 1/n, (P,); 0 for 0."""
    small = np.r_[0, np.cumsum(1 / np.arange(1, EXACT + 1))]
    n = np.maximum(number_P, 1).astype(np.float64)
    series = np.log(n) + EULER + 1 / (2 * n) - 1 / (12 * n**2) + 1 / (120 * n**4)
    return np.asarray(np.where(number_P <= EXACT, small[np.minimum(number_P, EXACT)], series))


def _beginnings(query_P: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.r_[True, np.diff(query_P) != 0]) if len(query_P) else np.zeros(0, dtype=np.int64)
