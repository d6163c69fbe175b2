"""Bootstrap intervals: seeded, paired, and as wide as they should be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import intervals


@given(n=st.integers(1, 60), seed=st.integers(0, 100), classes=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_replicates_are_the_statistic_of_each_resample(n: int, seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    outcome, group = rng.random(n) < 0.5, rng.integers(classes, size=n)
    weights = intervals._weights(n, 20, seed)
    assert (weights.sum(axis=1) == n).all()
    for grouped in (None, group):
        found = intervals.replicates(outcome, samples=20, seed=seed, group_N=grouped)
        for weight, value in zip(weights.astype(int), found, strict=True):
            drawn = np.repeat(np.arange(n), weight)
            chosen = None if grouped is None else grouped[drawn]
            assert value == pytest.approx(intervals.statistic(outcome[drawn], chosen), abs=1e-5)


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = intervals.interval(intervals.replicates(rng.random(120) < 0.3, samples=300, seed=1))
        covered += low <= 0.3 <= high
    assert 180 <= covered <= 199


def test_equal_models_differ_by_exactly_nothing() -> None:
    outcome = np.random.default_rng(0).random(80) < 0.4
    first, second = (intervals.replicates(outcome, samples=200, seed=2) for _ in range(2))
    assert intervals.interval(first - second) == (0.0, 0.0)


def test_pairing_makes_a_small_steady_difference_visible() -> None:
    rng = np.random.default_rng(0)
    worse = rng.random(400) < 0.5
    better = worse | (rng.random(400) < 0.08)
    a, b = (intervals.replicates(outcome, samples=500, seed=0) for outcome in (better, worse))
    assert intervals.interval(a - b)[0] > 0
    assert intervals.interval(a)[0] < intervals.interval(b)[1]  # unpaired, the two intervals overlap
