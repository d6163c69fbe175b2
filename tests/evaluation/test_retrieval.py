"""Recall against its plain definition, chance against enumeration, and controls with known answers."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from evaluation import both_ways, intervals, readouts, retrieval
from evaluation.retrieval import Relevance

KS = (1, 2, 5)


def plain_recall(score_QC: torch.Tensor, right_QC: torch.Tensor, k: int) -> list[bool]:
    """The definition of multi-caption benchmarks: is any of the k best-scored candidates a right one?"""
    top_QK = score_QC.topk(min(k, score_QC.shape[1]), dim=1).indices
    found = torch.zeros_like(right_QC)
    found.scatter_(1, top_QK, True)
    return (found & right_QC).sum(dim=1).gt(0)[right_QC.any(dim=1)].tolist()


def relation(right_TN: torch.Tensor) -> Relevance:
    text, image = np.nonzero(right_TN.numpy())
    return Relevance(text, image, *right_TN.shape)


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images, groups, texts = draw(st.integers(1, 12)), draw(st.integers(1, 3)), draw(st.integers(1, 15))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    vector_NGD = F.normalize(torch.randn(images, groups, 4, generator=generator), dim=-1)
    text_TD = F.normalize(torch.randn(texts, 4, generator=generator), dim=-1)
    right_TN = torch.rand(texts, images, generator=generator) < draw(st.sampled_from([0.1, 0.5, 1.0]))
    right_TN[draw(st.integers(0, texts - 1)), draw(st.integers(0, images - 1))] = True
    return vector_NGD, text_TD, right_TN


@given(case=cases(), block=st.sampled_from([1, 7, 2**24]))
@settings(max_examples=80, deadline=None)
def test_recall_is_the_plain_definition_in_blocks_of_any_size(case: tuple, block: int) -> None:
    vector_NGD, text_TD, right_TN = case
    score_NT = torch.einsum("ngd,td->ngt", vector_NGD, text_TD).amax(dim=1)
    asked = relation(right_TN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "BLOCK_SCORES", block)
        patch.setattr(both_ways, "BLOCK_SCORES", block)
        by_text, by_image = (found.best().hits(KS) for found in both_ways.both_ways(vector_NGD, text_TD, asked))
    for k in KS:
        assert by_text[k].tolist() == plain_recall(score_NT.T, right_TN, k)
        assert by_image[k].tolist() == plain_recall(score_NT, right_TN.T, k)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_equal_scores_count_as_the_mean_over_all_their_orders(data: st.DataObject) -> None:
    """By enumeration: candidates sorted by score, in each of the orders that they could have come in."""
    score_C = data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=1, max_size=6))
    right = data.draw(st.sets(st.integers(0, len(score_C) - 1), min_size=1))
    asked = Relevance(np.zeros(len(right), int), np.array(sorted(right)), 1, len(score_C))
    found = retrieval.ranks([torch.tensor([score_C])], asked).best().hits(KS)
    orders = list(permutations(range(len(score_C))))
    for k in KS:
        hits = [bool(right & set(sorted(order, key=lambda c: -score_C[c])[:k])) for order in orders]
        assert found[k].tolist() == [pytest.approx(np.mean(hits))]


@pytest.mark.parametrize("k", KS)
def test_a_model_that_sees_no_difference_reaches_chance_exactly(k: int) -> None:
    vector_NGD, text_TD = F.normalize(torch.ones(30, 2, 8), dim=-1), F.normalize(torch.ones(40, 8), dim=-1)
    asked = relation(torch.rand(40, 30, generator=torch.Generator().manual_seed(0)) < 0.1)
    by_text, by_image = (found.best().hits([k])[k] for found in both_ways.both_ways(vector_NGD, text_TD, asked))
    assert by_text.mean() == pytest.approx(retrieval.chance(asked, k))
    assert by_image.mean() == pytest.approx(retrieval.chance(asked.swapped(), k))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_chance_is_the_share_of_all_draws_that_hold_a_right_answer(data: st.DataObject) -> None:
    candidates, k = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 8))
    counts = data.draw(st.lists(st.integers(1, candidates), min_size=1, max_size=4))
    query = np.repeat(np.arange(len(counts)), counts)
    candidate = np.concatenate([np.arange(count) for count in counts])
    draws = list(combinations(range(candidates), min(k, candidates)))
    expected = np.mean([[any(drawn < count for drawn in draw) for draw in draws] for count in counts])
    assert retrieval.chance(Relevance(query, candidate, len(counts), candidates), k) == pytest.approx(expected)


def test_chance_at_one_is_the_mean_share_of_right_answers() -> None:
    asked = Relevance(np.array([0, 1, 1, 1]), np.array([4, 0, 1, 2]), 2, 10)
    assert retrieval.chance(asked, 1) == pytest.approx((1 / 10 + 3 / 10) / 2)


def test_a_perfect_encoder_answers_everything() -> None:
    group = np.arange(200) % 40
    text_TD = torch.eye(40)
    vector_NGD = torch.eye(40)[torch.from_numpy(group)].unsqueeze(1)
    asked = relation(torch.from_numpy(group == np.arange(40)[:, None]))
    for found in both_ways.both_ways(vector_NGD, text_TD, asked):
        assert (found.best().hits([1])[1] == 1).all()


@pytest.mark.parametrize("k", [1, 5, 10])
def test_a_random_encoder_reaches_chance(k: int) -> None:
    generator = torch.Generator().manual_seed(1)
    vector_NGD = F.normalize(torch.randn(400, 1, 128, generator=generator), dim=-1)
    text_TD = F.normalize(torch.randn(600, 128, generator=generator), dim=-1)
    asked = relation(torch.rand(600, 400, generator=generator) < 0.03)
    hit_Q = both_ways.both_ways(vector_NGD, text_TD, asked)[0].best().hits([k])[k]
    low, high = intervals.interval(intervals.replicates(hit_Q, samples=1000, seed=0))
    assert low <= retrieval.chance(asked, k) <= high


def test_queries_without_a_right_answer_are_left_out() -> None:
    right_TN = torch.tensor([[True, False], [False, False], [True, False]])
    vector_NGD, text_TD = torch.eye(2).unsqueeze(1), torch.eye(2)[[0, 1, 1]]
    hit = both_ways.both_ways(vector_NGD, text_TD, relation(right_TN))[0].best().hits([1])[1]
    assert hit.tolist() == [1, 0]


def test_readouts_are_what_their_names_say() -> None:
    names = ("a", "b", "c")
    branch_NHD = F.normalize(torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    text_TD = F.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    logit_NHT = branch_NHD @ text_TD.T
    score = {
        name: readouts.scores(readouts.vectors(name, branch_NHD, names), text_TD)
        for name in ("mean", "paper_mean", "max", "branch:b")
    }
    torch.testing.assert_close(score["paper_mean"], logit_NHT.mean(dim=1))
    torch.testing.assert_close(score["max"], logit_NHT.amax(dim=1))
    torch.testing.assert_close(score["branch:b"], logit_NHT[:, 1])
    norm_N = branch_NHD.mean(dim=1).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(score["mean"], score["paper_mean"] / norm_N)


def test_readouts_expand_to_the_branches_a_model_has() -> None:
    asked = ("mean", "max", "branch:style", "branches")
    assert readouts.expand(asked, ("detail", "style")) == ["mean", "max", "branch:style", "branch:detail"]
    assert readouts.expand(asked, ("detail", "nouns")) == ["mean", "max", "branch:detail", "branch:nouns"]
    assert readouts.expand(asked, ("alt_text",)) == ["mean"]
