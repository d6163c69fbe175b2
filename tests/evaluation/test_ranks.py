"""Figures of ranks against enumeration of all orders, and both directions against products of their own."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from evaluation import both_ways, retrieval
from evaluation.intervals import MedianEstimate
from evaluation.ranks import harmonic
from evaluation.retrieval import Relevance


def plain_average_precision(order: list[int], right: set[int]) -> float:
    places = [place for place, candidate in enumerate(order, 1) if candidate in right]
    return float(np.mean([found / place for found, place in enumerate(places, 1)]))


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_average_precision_and_rank_are_means_over_all_orders_of_equal_scores(data: st.DataObject) -> None:
    score_C = data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=6))
    right = data.draw(st.sets(st.integers(0, len(score_C) - 1), min_size=1))
    asked = Relevance(np.zeros(len(right), int), np.array(sorted(right)), 1, len(score_C))
    found = retrieval.ranks([torch.tensor([score_C])], asked)
    orders = [sorted(order, key=lambda c: -score_C[c]) for order in permutations(range(len(score_C)))]
    expected = np.mean([plain_average_precision(order, right) for order in orders])
    assert found.average_precision().tolist() == [pytest.approx(expected)]
    first = np.mean([min(order.index(candidate) for candidate in right) + 1 for order in orders])
    assert found.best().rank_Q().tolist() == [pytest.approx(first)]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_figures_of_the_first_r_are_means_over_all_orders_of_equal_scores(data: st.DataObject) -> None:
    score_C = data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=6))
    right = data.draw(st.sets(st.integers(0, len(score_C) - 1), min_size=1))
    first = data.draw(st.integers(len(right), 7))  # more, where some right answers are no candidates
    asked = Relevance(np.zeros(len(right), int), np.array(sorted(right)), 1, len(score_C))
    found = retrieval.ranks([torch.tensor([score_C])], asked)
    orders = [sorted(order, key=lambda c: -score_C[c]) for order in permutations(range(len(score_C)))]
    hits = [[candidate in right for candidate in order[:first]] for order in orders]
    among = np.mean([sum(hit) / first for hit in hits])
    mean = np.mean([sum(sum(hit[:i]) / i for i in range(1, len(hit) + 1) if hit[i - 1]) / first for hit in hits])
    assert found.precision(np.array([first])).tolist() == [pytest.approx(among)]
    assert found.average_precision(np.array([first])).tolist() == [pytest.approx(mean)]


def test_average_precision_of_several_queries_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    score_QC = torch.randn(20, 50, generator=generator)
    right_QC = torch.rand(20, 50, generator=generator) < 0.2
    right_QC[:, 0] = True
    right_QC[3] = torch.arange(50) < 1
    asked = Relevance(*np.nonzero(right_QC.numpy()), 20, 50)
    expected = [metrics.average_precision_score(right, score) for right, score in zip(right_QC, score_QC, strict=True)]
    for few in (1, 100):  # sorted, and compared one by one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(retrieval, "FEW", few)
            found = retrieval.ranks(score_QC.split(7), asked).average_precision()
        np.testing.assert_allclose(found, expected)


def test_harmonic_numbers() -> None:
    np.testing.assert_allclose(
        harmonic(np.array([0, 1, 2, 64, 65, 1000])),
        [sum(1 / i for i in range(1, n + 1)) for n in (0, 1, 2, 64, 65, 1000)],
        rtol=1e-13,
    )


@pytest.mark.parametrize("margin", [5e-7, 0.05, 0.5, -1e-3])
@pytest.mark.parametrize("most", [2**22, 0])
@pytest.mark.parametrize("distinct", [400, 30])
def test_both_ways_are_what_products_of_their_own_give(
    monkeypatch: pytest.MonkeyPatch, margin: float, most: int, distinct: int
) -> None:
    """Whatever the margin holds, of texts and images of which many are equal, in blocks that do not come out even."""
    generator = torch.Generator().manual_seed(1)
    vector_NGD = F.normalize(torch.randn(distinct, 2, 16, generator=generator), dim=-1)[torch.arange(90) % distinct]
    text_TD = F.normalize(torch.randn(distinct, 16, generator=generator), dim=-1)[torch.arange(331) % distinct]
    right_TN = torch.rand(331, 90, generator=generator) < 0.005
    right_TN[torch.arange(90) * 3, torch.arange(90)] = True
    asked = Relevance(*np.nonzero(right_TN.numpy()), 331, 90)
    assert retrieval.layers(asked.candidate_P).max() < retrieval.FEW
    score_TN = torch.einsum("ngd,td->tng", vector_NGD, text_TD).amax(dim=2)
    for name, value in (("BLOCK_SCORES", 4000), ("MARGIN", margin), ("MOST_KEPT", most)):
        monkeypatch.setattr(both_ways, name, value)
    again, theirs = [], both_ways._image_blocks
    monkeypatch.setattr(both_ways, "_image_blocks", lambda *given: again.append(1) or theirs(*given))
    by_text, by_image = both_ways.both_ways(vector_NGD, text_TD, asked)
    none_kept = (margin, distinct) == (5e-7, 400)
    no_good = margin < 0 or (most == 0 and not none_kept)  # no score fits the margin, or more than are kept do
    assert len(again) == no_good, "a second product only where the first was no good"
    for found, score_QC, right in ((by_text, score_TN, asked), (by_image, score_TN.T, asked.swapped())):
        query_P, candidate_P = right.in_order()
        own_P1 = score_QC[query_P, candidate_P][:, None]
        assert found.query_P.tolist() == query_P.tolist()
        near = torch.finfo(torch.float32).eps * 4  # einsum rounds otherwise than a product
        assert (found.above_P >= (score_QC[query_P] > own_P1 + near).sum(dim=1).numpy()).all()
        assert (found.above_P + found.tied_P <= (score_QC[query_P] >= own_P1 - near).sum(dim=1).numpy()).all()
        if distinct == 30:
            assert (found.tied_P >= 3).all(), "copies tie"


def test_medians_are_those_of_the_resamples() -> None:
    rng = np.random.default_rng(0)
    rank_N = rng.geometric(0.02, size=501).astype(float)
    estimate = MedianEstimate(rank_N)
    assert estimate.value == np.median(rank_N)
    from evaluation.intervals import _weights

    drawn = [np.median(np.repeat(rank_N, weight_N)) for weight_N in _weights(501, 200, 3)]
    assert estimate.replicates(samples=200, seed=3).tolist() == drawn
