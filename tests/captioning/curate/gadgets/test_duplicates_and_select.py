"""Gadgets `duplicates` and `select`: properties that hold for any set of captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import ValidationError
from small_workspace import both_passes

from captioning.curate.config import CurateConfig
from captioning.curate.draft import Draft
from captioning.curate.gadget import run_gadgets
from captioning.curate.gadgets.duplicates import Duplicates, DuplicatesConfig
from captioning.curate.gadgets.ground import SCORE
from captioning.curate.gadgets.select import Select, SelectConfig
from captioning.curate.selection.lexical import similarity_matrix
from captioning.curate.selection.quality import quality
from captioning.curate.text_rules.words import WordLimits, words

WORD = st.sampled_from(["a", "red", "blue", "boat", "house", "on", "the", "sea", "sky", "with"])
TEXT = st.lists(WORD, min_size=1, max_size=7).map(" ".join)
SLOT = st.sampled_from([("detail", "paragraph"), ("summary", "sentence"), ("summary", "phrase"), ("nouns", "word")])
CAPTIONS = st.lists(st.tuples(TEXT, SLOT), min_size=1, max_size=7)


def draft_of(*images: list[tuple[str, tuple[str, str]]]) -> Draft:
    """A draft of images whose captions are all acceptable by themselves."""
    captions = [caption for image in images for caption in image]
    columns: dict[str, list[Any]] = {
        "key": [f"{number:02}" for number, image in enumerate(images) for _ in image],
        "caption_id": [f"{i:03}" for i in range(len(captions))],
        "text": [text for text, _ in captions],
        "perspective": [slot[0] for _, slot in captions],
        "granularity": [slot[1] for _, slot in captions],
        "level": ["scene"] * len(captions),
        "status": ["ok"] * len(captions),
        "finish_reason": ["stop"] * len(captions),
    }
    return Draft(columns)


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
    gadgets = both_passes(config)
    run_gadgets(draft, gadgets[:4])
    acceptable = draft.open_of(range(len(draft)))
    run_gadgets(draft, gadgets[4:])
    kept = draft.open_of(range(len(draft)))
    assert set(kept) <= set(acceptable)
    assert bool(kept) == bool(acceptable), "an image with an acceptable caption keeps at least one"
    spoken = [words(draft.texts[row]) for row in kept]
    assert len(set(spoken)) == len(spoken), "never the same words twice"
    if coverage:
        different = {draft.slot(row) for row in acceptable if draft.verdicts[row] != ("duplicates", "duplicate")}
        assert {draft.slot(row) for row in kept} == different
    else:
        assert len(kept) <= most


def duplicates_by_hand(captions: Any, limit: float, coverage: bool) -> list[str | None]:
    """The rule of `duplicates`, word by word and slowly."""
    verdicts: list[str | None] = [None] * len(captions)
    similarity = similarity_matrix([text for text, _ in captions], 2)
    for reason in ("duplicate", "near_duplicate"):
        rows = [row for row, verdict in enumerate(verdicts) if verdict is None]
        left = Counter(captions[row][1] for row in rows)
        stay: list[int] = []
        for row in sorted(rows, key=lambda row: (left[captions[row][1]], row)):
            if reason == "duplicate":
                drop = any(captions[row][0] == captions[other][0] for other in stay)
            else:
                drop = any(similarity[row, other] > limit for other in stay) and not (
                    coverage and left[captions[row][1]] == 1
                )
                left[captions[row][1]] -= drop
            if drop:
                verdicts[row] = reason
            else:
                stay.append(row)
    return verdicts


@settings(deadline=None)
@given(st.lists(CAPTIONS, min_size=1, max_size=4), st.booleans(), st.sampled_from([0.0, 0.3, 0.6, 0.9]))
def test_duplicates_agree_with_their_rule(images: Any, coverage: bool, limit: float) -> None:
    draft = draft_of(*images)
    Duplicates(DuplicatesConfig(max_similarity=limit), coverage=coverage).apply(draft)
    verdicts = [verdict[1] if verdict else None for verdict in draft.verdicts]
    assert verdicts == [verdict for image in images for verdict in duplicates_by_hand(image, limit, coverage)]


def test_near_duplicates_need_the_threshold_and_spare_the_last_of_a_slot() -> None:
    captions = [
        ("a small red boat on the calm sea", ("summary", "sentence")),
        ("a small red boat on the calm sea today", ("summary", "sentence")),
        ("small red boat on the calm sea", ("summary", "phrase")),
        ("A small red boat, on the calm sea!", ("detail", "paragraph")),
    ]
    same, near = ("duplicates", "duplicate"), ("duplicates", "near_duplicate")
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
    run_gadgets(draft, both_passes(config))
    similarity = similarity_matrix(["a red boat", "a red boat here"], 2)[0, 1]
    dropped = [row for row in range(3) if draft.verdicts[row] == ("select", "redundant")]
    assert dropped in ([0], [1])
    assert_allclose(draft.scores[dropped[0]]["nearest"], similarity, rtol=1e-6)
    assert draft.scores[2]["nearest"] == 0
    assert [scores["words"] for scores in draft.scores] == [3, 4, 2]


def test_meaning_decides_where_it_is_asked() -> None:
    """Words say that the first two differ; their embeddings say that they do not."""
    slot = ("summary", "phrase")
    draft = draft_of([("a red boat", slot), ("one crimson vessel", slot), ("a red house", slot)])
    vectors = np.array([[1, 0], [0.96, 0.28], [0, 1]], np.float32)
    asked: list[int] = []

    def embed(_: Draft, rows: Sequence[int]) -> np.ndarray:
        asked.extend(rows)
        return vectors[rows]

    config = SelectConfig(similarity="semantic", max_similarity=0.9)
    Select(config, coverage=False, embed=embed).apply(draft)
    assert asked == [0, 1, 2]
    assert draft.verdicts == [None, ("select", "redundant"), None]
    assert_allclose([scores["nearest"] for scores in draft.scores], [0, 0.96, 0], atol=1e-6)
    with pytest.raises(ValueError, match="an embedding model goes with semantic similarity"):
        Select(config, coverage=False)


def test_quality_is_a_usual_length_or_a_good_score() -> None:
    texts = ["w " * 12, "w " * 24, "w " * 3, "w"]
    draft = draft_of([(text.strip(), ("summary", "sentence")) for text in texts])
    rows_BM, open_BM = np.array([[0, 1, 2, 3]]), np.array([[True, True, True, False]])
    limits = {"sentence": WordLimits(min=3, max=48)}  # the geometric mean is 12
    assert_allclose(quality("uniform", draft, rows_BM, open_BM, limits), 1)
    assert_allclose(quality("length", draft, rows_BM, open_BM, limits)[0, :3], [1, 0.5, 0.25])
    assert_allclose(quality("length", draft, rows_BM, open_BM, {}), 1)
    for row, score in enumerate([0.3, 0.2, 0.05]):
        draft.scores[row][SCORE] = score
    assert_allclose(quality("ground", draft, rows_BM, open_BM, limits)[0, :3], np.exp([0, -1, -2.5]))
    del draft.scores[1][SCORE]
    assert_allclose(quality("ground", draft, rows_BM, open_BM, limits)[0, :3], [1, 1, np.exp(-2.5)])


def test_a_quality_that_nothing_weighs_or_gives_is_refused() -> None:
    for wrong, message in (
        ({"quality": "ground", "method": "dpp"}, "name a model in ground.scorer"),
        ({"quality": "length"}, "max_min does not weigh"),
    ):
        with pytest.raises(ValidationError, match=message):
            CurateConfig.model_validate({"select": wrong})
