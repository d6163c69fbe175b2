"""Similarity, duplicates and selection: properties that hold for any set of captions."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from captioning.curate.config import CurateConfig, DuplicatesConfig
from captioning.curate.draft import Draft, run_gadgets
from captioning.curate.gadgets.duplicates import Duplicates
from captioning.curate.gadgets.order import all_gadgets
from captioning.curate.gadgets.select import select
from captioning.curate.reasons import Reason
from captioning.curate.selection.lexical import distinct, jaccard, mean_pairwise, ngrams, similarity_matrix

WORD = st.sampled_from(["a", "red", "blue", "boat", "house", "on", "the", "sea", "sky", "with"])
TEXT = st.lists(WORD, min_size=1, max_size=7).map(" ".join)
SLOT = st.sampled_from([("detail", "paragraph"), ("summary", "sentence"), ("summary", "phrase"), ("nouns", "word")])
CAPTIONS = st.lists(st.tuples(TEXT, SLOT), min_size=1, max_size=7)


def draft_of(captions: list[tuple[str, tuple[str, str]]]) -> Draft:
    """A draft of one image whose captions are all acceptable by themselves."""
    columns: dict[str, list[Any]] = {
        "key": ["k"] * len(captions),
        "caption_id": [f"{i:03}" for i in range(len(captions))],
        "text": [text for text, _ in captions],
        "perspective": [slot[0] for _, slot in captions],
        "granularity": [slot[1] for _, slot in captions],
        "level": ["scene"] * len(captions),
        "status": ["ok"] * len(captions),
        "finish_reason": ["stop"] * len(captions),
    }
    return Draft(columns)


def greedy_by_hand(similarity: np.ndarray, slots: list[Any] | None, most: int, limit: float) -> list[int]:
    """The rule of `select`, word by word and slowly."""
    rows = range(len(similarity))
    chosen = [min(rows, key=lambda i: (sum(similarity[i][j] for j in rows), i))]
    while True:
        left = [i for i in rows if i not in chosen]
        uncovered = [i for i in left if slots is not None and slots[i] not in {slots[j] for j in chosen}]
        pool = uncovered or left
        if not pool:
            return chosen
        best = min(pool, key=lambda i: (max(similarity[i][j] for j in chosen), i))
        nearest = max(similarity[best][j] for j in chosen)
        if not uncovered and (len(chosen) >= most or nearest > limit):
            return chosen
        chosen.append(best)


@given(TEXT, TEXT, st.integers(1, 3))
def test_similarity_is_a_jaccard_index(first: str, second: str, order: int) -> None:
    a, b = ngrams(first, order), ngrams(second, order)
    assert jaccard(a, b) == jaccard(b, a) == pytest.approx(len(a & b) / len(a | b))
    assert jaccard(a, a) == 1
    assert jaccard(a, ngrams("something else entirely", order)) == 0


def test_ngrams_are_of_words_and_of_all_orders() -> None:
    assert ngrams("A red-brown boat!", 2) == {
        ("a",),
        ("red-brown",),
        ("boat",),
        ("a", "red-brown"),
        ("red-brown", "boat"),
    }
    assert distinct(["a b c", "a b d"], 2) == pytest.approx(3 / 4)
    assert distinct(["one"], 2) is None
    assert mean_pairwise(np.array([[1, 0.5], [0.5, 1]])) == 0.5
    assert mean_pairwise(np.ones((1, 1))) is None


@settings(deadline=None)
@given(CAPTIONS, st.integers(1, 7), st.sampled_from([0.0, 0.3, 0.8, 1.0]), st.booleans())
def test_selection_agrees_with_the_greedy_rule(captions: Any, most: int, limit: float, coverage: bool) -> None:
    similarity = similarity_matrix([text for text, _ in captions], 2)
    slots = [slot for _, slot in captions] if coverage else None
    chosen = select(similarity, slots, most, limit)
    assert chosen == greedy_by_hand(similarity, slots, most, limit)
    assert 1 <= len(chosen) == len(set(chosen)) <= len(captions)
    if coverage:
        assert {captions[i][1] for i in chosen} == {slot for _, slot in captions}
    else:
        assert len(chosen) <= most
        assert all(similarity[j, chosen[:i]].max() <= limit + 1e-6 for i, j in enumerate(chosen) if i)


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_greedy_selection_is_within_twice_the_best_distance(n: int, seed: int) -> None:
    """Gonzalez' bound for max-min selection, on points where the distance is a metric."""
    points = np.random.default_rng(seed).random((n, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    chosen = select(1 - distance, None, 3, 1.0)

    def spread(subset: Any) -> float:
        return min(distance[i, j] for i in subset for j in subset if i < j)

    best = max(spread(subset) for subset in combinations(range(n), min(3, n)))
    assert 2 * spread(sorted(chosen)) >= best - 1e-9


@settings(deadline=None)
@given(CAPTIONS, st.booleans(), st.sampled_from([0.0, 0.5, 0.9]), st.integers(1, 3))
def test_what_all_gadgets_leave(captions: Any, coverage: bool, limit: float, most: int) -> None:
    config = CurateConfig.model_validate(
        {
            "coverage": coverage,
            "duplicates": {"max_similarity": limit},
            "select": {"max_captions": most},
            "length": {"sentence": {"min": 1}, "paragraph": {"min": 1}},
            "reject": {"max_repetition": 1, "max_run": 99},
        }
    )
    draft = draft_of(captions)
    gadgets = all_gadgets(config)
    run_gadgets(draft, gadgets[:4])
    acceptable = draft.open_of(range(len(draft)))
    run_gadgets(draft, gadgets[4:])
    kept = draft.open_of(range(len(draft)))
    assert set(kept) <= set(acceptable)
    assert bool(kept) == bool(acceptable), "an image with an acceptable caption keeps at least one"
    spoken = [ngrams(draft.texts[row], 9) for row in kept]
    assert len(set(spoken)) == len(spoken), "never the same words twice"
    if coverage:
        different = {draft.slot(row) for row in acceptable if draft.verdicts[row] != ("duplicates", Reason.DUPLICATE)}
        assert {draft.slot(row) for row in kept} == different
    else:
        assert len(kept) <= most


def test_near_duplicates_need_the_threshold_and_spare_the_last_of_a_slot() -> None:
    captions = [
        ("a small red boat on the calm sea", ("summary", "sentence")),
        ("a small red boat on the calm sea today", ("summary", "sentence")),
        ("small red boat on the calm sea", ("summary", "phrase")),
        ("A small red boat, on the calm sea!", ("detail", "paragraph")),
    ]
    same, near = ("duplicates", Reason.DUPLICATE), ("duplicates", Reason.NEAR_DUPLICATE)
    for coverage, threshold, expected in (
        (True, 0.7, [same, None, None, None]),  # of the same words, the one that is alone in its slot stays
        (False, 0.7, [same, None, near, near]),
        (False, 0.95, [same, None, None, None]),
    ):
        draft = draft_of(captions)
        Duplicates(DuplicatesConfig(max_similarity=threshold), coverage=coverage).apply(draft)
        assert draft.verdicts == expected


def test_scores_say_how_near_a_caption_is() -> None:
    slot = ("summary", "phrase")
    draft = draft_of([("a red boat", slot), ("a red boat here", slot), ("blue sky", slot)])
    config = CurateConfig.model_validate({"select": {"max_similarity": 0.5}, "coverage": False})
    run_gadgets(draft, all_gadgets(config))
    similarity = similarity_matrix(["a red boat", "a red boat here"], 2)[0, 1]
    dropped = [row for row in range(3) if draft.verdicts[row] == ("select", Reason.REDUNDANT)]
    assert dropped in ([0], [1])
    assert_allclose(draft.scores[dropped[0]]["nearest"], similarity, rtol=1e-6)
    assert draft.scores[2]["nearest"] == 0
    assert [scores["words"] for scores in draft.scores] == [3, 4, 2]
