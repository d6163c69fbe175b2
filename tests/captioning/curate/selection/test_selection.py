"""Similarity and selection against the definitions, computed by hand: on any captions, for any images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from captioning.curate.selection import lexical, padding, semantic
from captioning.curate.selection.dpp import DeterminantalPointProcess
from captioning.curate.selection.greedy import NOT_SELECTED, greedy, nearest_selected
from captioning.curate.selection.lexical import distinct
from captioning.curate.selection.max_min import MaxMin
from captioning.curate.selection.mmr import MaximalMarginalRelevance
from captioning.curate.selection.ngrams import Ngrams
from captioning.curate.text_rules.words import words

WORD = st.sampled_from(["a", "red", "blue", "boat", "house", "on", "the", "sea", "sky", "with"])
TEXT = st.lists(WORD, max_size=7).map(" ".join)
IMAGES = st.lists(st.lists(TEXT, max_size=9), min_size=1, max_size=5)
METHODS = ("max_min", "mmr", "dpp")
TRADEOFF = 0.6


def ngram_set(text: str, order: int) -> set[tuple[str, ...]]:
    """The word n-grams of a text of all orders from 1 to `order`."""
    spoken = words(text)
    return {spoken[i : i + n] for n in range(1, order + 1) for i in range(len(spoken) - n + 1)}


def jaccard(first: set[Any], second: set[Any]) -> float:
    """Shared share of two sets."""
    return len(first & second) / len(first | second) if first & second else 0.0


@settings(deadline=None)
@given(IMAGES, st.integers(1, 5))
def test_lexical_similarity_is_the_jaccard_index_of_ngrams(images: list[list[str]], order: int) -> None:
    texts = [text for image in images for text in image]
    ends = np.cumsum([len(image) for image in images])
    rows = [range(end - len(image), end) for image, end in zip(images, ends.tolist(), strict=True)]
    seen = 0
    for rows_BM in padding.blocks(rows, cells=16):
        found_BMM = lexical.similarity(lambda row: words(texts[row]), rows_BM, order)
        for own_M, found_MM in zip(rows_BM, found_BMM, strict=True):
            for (i, first), (j, second) in combinations(enumerate(own_M.tolist()), 2):
                both = padding.ABSENT not in (first, second)
                expected = jaccard(ngram_set(texts[first], order), ngram_set(texts[second], order)) if both else 0.0
                assert found_MM[i, j] == found_MM[j, i] == np.float32(expected)
            assert_array_equal(np.diag(found_MM), own_M != padding.ABSENT)
            seen += int((own_M != padding.ABSENT).sum())
    assert seen == len(texts)


@settings(deadline=None)
@given(st.lists(TEXT, max_size=6), st.integers(1, 5))
def test_ngrams_are_numbered_without_mistaking_one_for_another(texts: list[str], order: int) -> None:
    ngrams = Ngrams([words(text) for text in texts])
    codes, owners, most = ngrams.of_order(order)
    expected = [
        (text, spoken[i : i + order])
        for text, spoken in enumerate(map(words, texts))
        for i in range(len(spoken) - order + 1)
    ]
    assert owners.tolist() == [text for text, _ in expected]
    pairs = {(code, gram) for code, (_, gram) in zip(codes.tolist(), expected, strict=True)}
    assert len(pairs) == len({code for code, _ in pairs}) == len({gram for _, gram in pairs})
    assert all(0 <= code < most for code in codes.tolist())


def test_distinct_counts_ngrams_of_all_texts_together() -> None:
    assert distinct(["a b c", "a b d"], 2) == pytest.approx(3 / 4)
    assert distinct(["one"], 2) is None


def test_the_mean_is_over_pairs_of_different_open_captions() -> None:
    similarity = np.array([[[1, 0.5, 0.1, 0], [0.5, 1, 0.3, 0], [0.1, 0.3, 1, 0], [0, 0, 0, 0]]])
    everything = np.array([[True, True, True, False]])
    assert padding.mean_pairwise(similarity, everything) == pytest.approx(0.3)
    assert padding.mean_pairwise(similarity, np.array([[True, False, True, False]])) == pytest.approx(0.1)
    assert np.isnan(padding.mean_pairwise(similarity, np.array([[True, False, False, False]])))


def vectors(count: int, seed: int, width: int = 24) -> np.ndarray:
    """Unit vectors that have something in common, as embeddings of one image's captions do."""
    drawn = np.random.default_rng(seed).normal(size=(count, width)) + 0.8
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(0, 99))
def test_cosines_do_not_depend_on_the_images_beside(counts: list[int], seed: int) -> None:
    vectors_ND = vectors(sum(counts), seed)
    ends = np.cumsum(counts).tolist()
    rows = [range(end - count, end) for count, end in zip(counts, ends, strict=True)]
    together = {
        int(own_M[0]): cosines
        for rows_BM in padding.blocks(rows)
        for own_M, cosines in zip(rows_BM, semantic.similarity(vectors_ND, rows_BM), strict=True)
    }
    for image in rows:
        for rows_BM in padding.blocks([image]):
            (alone,) = semantic.similarity(vectors_ND, rows_BM)
            assert_array_equal(alone, together[image.start])
            n = len(image)
            expected = vectors_ND[image.start : image.stop] @ vectors_ND[image.start : image.stop].T
            assert_allclose(alone[:n, :n], expected, atol=1e-6)
            assert not alone[n:].any()


@st.composite
def cases(draw: Any) -> dict[str, Any]:
    """Images with similarities of either kind, some captions closed, slots or none, and limits."""
    counts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    B, M = len(counts), 8
    present_BM = np.arange(M) < np.array(counts)[:, None]
    if draw(st.booleans()):
        texts = draw(st.lists(TEXT, min_size=sum(counts), max_size=sum(counts)))
        rows_BM = np.full((B, M), padding.ABSENT)
        rows_BM[present_BM] = np.arange(sum(counts))
        similarity_BMM = lexical.similarity(lambda row: words(texts[row]), rows_BM, 2)
    else:
        rows_BM = np.where(present_BM, np.arange(M), padding.ABSENT)
        similarity_BMM = semantic.similarity(vectors(M, draw(st.integers(0, 99))), rows_BM)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    return {
        "similarity_BMM": similarity_BMM,
        "open_BM": present_BM & (rng.random((B, M)) < 0.9),
        "slots_BM": rng.integers(0, 3, (B, M)) if draw(st.booleans()) else None,
        "quality_BM": rng.uniform(0.05, 1, (B, M)),
        "max_captions": draw(st.integers(1, 7)),
        "max_similarity": draw(st.sampled_from([0.0, 0.3, 0.6, 1.0])),
    }


def criterion(method: str, case: dict[str, Any]) -> Any:
    """The criterion of this name."""
    if method == "max_min":
        return MaxMin(case["similarity_BMM"], case["open_BM"])
    if method == "mmr":
        return MaximalMarginalRelevance(case["similarity_BMM"], case["quality_BM"], TRADEOFF)
    return DeterminantalPointProcess(case["similarity_BMM"], case["quality_BM"])


def select(method: str, case: dict[str, Any]) -> np.ndarray:
    """The ranks that greedy selection gives."""
    limits = {name: case[name] for name in ("max_captions", "max_similarity")}
    return greedy(criterion(method, case), case["similarity_BMM"], case["open_BM"], case["slots_BM"], **limits)


def worth(
    method: str, similarity: np.ndarray, quality: np.ndarray, chosen: list[int], i: int, there: list[int]
) -> float:
    """What adding caption i to those chosen is worth, by definition."""
    if method == "dpp":
        kernel = similarity.astype(float) * np.outer(quality, quality)
        return float(np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])]))
    if method == "mmr":
        nearest = max((similarity[i, j] for j in chosen), default=0.0)
        return float(TRADEOFF * quality[i] - (1 - TRADEOFF) * max(nearest, 0.0))
    return -float(max(similarity[i, j] for j in chosen) if chosen else sum(similarity[i, j] for j in there if j != i))


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=60)
@given(case=cases())
def test_each_step_takes_the_best_by_definition(method: str, case: dict[str, Any]) -> None:
    for b, rank_M in enumerate(select(method, case)):
        there = np.flatnonzero(case["open_BM"][b]).tolist()
        similarity, quality = case["similarity_BMM"][b], case["quality_BM"][b]
        slots = case["slots_BM"][b] if case["slots_BM"] is not None else None
        order = np.argsort(np.where(rank_M == NOT_SELECTED, 99, rank_M))[
            : int((rank_M != NOT_SELECTED).sum())
        ].tolist()
        for step in range(len(order) + 1):
            chosen = order[:step]
            left = [i for i in there if i not in chosen]
            missing = [i for i in left if slots is not None and slots[i] not in {slots[j] for j in chosen}]
            near = {i: max((similarity[i, j] for j in chosen), default=-np.inf) for i in left}
            free = [i for i in left if near[i] <= case["max_similarity"]] if step < case["max_captions"] else []
            eligible = missing or free
            if step == len(order):
                assert not eligible
                break
            assert order[step] in eligible
            values = {i: worth(method, similarity, quality, chosen, i, there) for i in eligible}
            assert values[order[step]] >= max(values.values()) - 1e-6


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=40)
@given(case=cases())
def test_one_caption_stays_and_every_slot_is_covered(method: str, case: dict[str, Any]) -> None:
    rank_BM = select(method, case)
    selected_BM = rank_BM != NOT_SELECTED
    assert not (selected_BM & ~case["open_BM"]).any()
    assert_array_equal(selected_BM.any(axis=1), case["open_BM"].any(axis=1))
    for b, chosen_M in enumerate(selected_BM):
        if case["slots_BM"] is not None:
            slots = case["slots_BM"][b]
            assert set(slots[chosen_M]) == set(slots[case["open_BM"][b]])
        else:
            assert chosen_M.sum() <= case["max_captions"]
            if chosen_M.sum() > 1:
                assert nearest_selected(case["similarity_BMM"], rank_BM)[b, chosen_M].max() <= np.float32(
                    case["max_similarity"]
                )


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=30)
@given(case=cases())
def test_images_do_not_see_each_other(method: str, case: dict[str, Any]) -> None:
    together = select(method, case)
    for b in range(len(together)):
        alone = {name: value[b : b + 1] if isinstance(value, np.ndarray) else value for name, value in case.items()}
        assert_array_equal(select(method, alone)[0], together[b])


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_max_min_is_within_twice_the_best_distance(n: int, seed: int) -> None:
    """Gonzalez' bound, on points where the distance is a metric."""
    points = np.random.default_rng(seed).random((n, 2)) / 2
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    case = {
        "similarity_BMM": 1 - distance[None],
        "open_BM": np.ones((1, n), bool),
        "slots_BM": None,
        "max_captions": 3,
        "max_similarity": 1.0,
    }
    chosen = np.flatnonzero(select("max_min", case)[0] != NOT_SELECTED).tolist()

    def spread(subset: Sequence[int]) -> float:
        return min(float(distance[i, j]) for i, j in combinations(subset, 2))

    best = max(spread(subset) for subset in combinations(range(n), min(3, n)))
    assert 2 * spread(chosen) >= best - 1e-9


def test_what_is_good_decides_where_it_is_asked() -> None:
    similarity_BMM = np.array([[[1, 0.9, 0.1], [0.9, 1, 0.1], [0.1, 0.1, 1]]], np.float32)
    case = {
        "similarity_BMM": similarity_BMM,
        "open_BM": np.ones((1, 3), bool),
        "slots_BM": None,
        "quality_BM": np.array([[0.5, 1.0, 0.4]]),
        "max_captions": 2,
        "max_similarity": 1.0,
    }
    assert select("mmr", case).tolist() == [[NOT_SELECTED, 0, 1]]
    assert select("dpp", case).tolist() == [[NOT_SELECTED, 0, 1]]
    case["quality_BM"] = np.array([[1.0, 1.0, 0.01]])
    assert select("dpp", case).tolist() == [[0, 1, NOT_SELECTED]], "a poor caption is not worth being different"
