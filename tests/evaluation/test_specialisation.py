"""Specialisation: what branches that are specialists, alike, or tied come to, its interval, and its words."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import branches, intervals, specialisation, table
from evaluation.config import EvaluateConfig
from evaluation.specialisation import BEST, MARGIN, Own, Specialisation
from evaluation.tasks import retrieval
from tests.evaluation.test_branches import specialised

DRAWS = {"samples": 400, "seed": 0}


def both(*perspectives: Own) -> tuple[Specialisation, Specialisation]:
    return Specialisation(BEST, perspectives), Specialisation(MARGIN, perspectives)


def test_figures_are_those_of_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = specialised({"style": 1.0, "nouns": 0.3}, monkeypatch)
    for direction in retrieval.DIRECTIONS:
        found = branches.matrix(evaluation, direction)
        assert found is not None
        best, margin = (
            evaluation.by_key["retrieval", "branches", "own_perspective", f"{direction}_{metric}"]
            for metric in (BEST, MARGIN)
        )
        own_HP = found.value_RP[: found.branches, :2]  # style, nouns; there is no branch for mood
        assert best.value == len(found.own_wins()) / 2
        assert margin.value == pytest.approx(np.mean([own_HP[p, p] - own_HP[:, p].mean() for p in range(2)]), abs=1e-6)
        assert (best.chance, margin.chance) == (1 / 3, 0)


def test_branches_that_are_alike_are_at_chance() -> None:
    outcome_QH = np.repeat(np.array([[1.0], [0.0], [1.0]]), 4, axis=1)
    best, margin = both(Own(outcome_QH, 0), Own(outcome_QH, 3))
    assert (best.value, margin.value, best.n) == (1 / 4, 0, 6)
    assert (best.replicates(**DRAWS) == 1 / 4).all()
    assert (margin.replicates(**DRAWS) == 0).all()


def test_two_that_tie_share_the_first_place() -> None:
    best, _ = both(Own(np.array([[1.0, 1.0, 0.0]]), 0), Own(np.array([[0.0, 1.0, 0.0]]), 1))
    assert best.value == (1 / 2 + 1) / 2


def test_the_interval_is_of_queries_drawn_again() -> None:
    rng = np.random.default_rng(1)
    outcome_QH = (rng.random((300, 2)) < (0.6, 0.5)).astype(float)
    best, margin = both(Own(outcome_QH, 0))
    drawn = [outcome_QH[rng.integers(300, size=300)].mean(axis=0) for _ in range(2000)]
    apart_S = np.array([(own - other) / 2 for own, other in drawn])
    low, high = intervals.interval(margin.replicates(samples=2000, seed=0))
    assert (low, high) == pytest.approx(intervals.interval(apart_S), abs=0.01)
    assert best.replicates(samples=2000, seed=0).mean() == pytest.approx((apart_S > 0).mean(), abs=0.03)


def test_one_branch_or_a_missing_readout_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = specialised({"style": 1.0, "nouns": 1.0}, monkeypatch)
    left = [one for one in found.measurements if one.readout != "branch:alt_text"]
    assert list(specialisation.measure(left, found.encoder.branches, retrieval.DIRECTIONS)) == []
    single = specialised({"style": 1.0}, monkeypatch, names=("style",))
    assert not any(one.readout == "branches" for one in single.measurements)


def test_it_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    config = EvaluateConfig(bootstrap_samples=100)
    evaluation = specialised({"style": 1.0, "nouns": 1.0}, monkeypatch)
    (sentence,) = specialisation.sentences(table.tables([evaluation], config).figures)
    assert sentence.startswith(
        "x, run: the branch of a perspective's own name is the best on 100.0 % (100.0 to 100.0) of perspectives "
        "text to image and 100.0 % (100.0 to 100.0) of perspectives image to text, where chance is 33.3 %; its R@1 "
        "differs from the mean of all branches by +6"
    )
