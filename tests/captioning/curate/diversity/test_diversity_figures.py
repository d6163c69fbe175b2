"""Figures of diversity against identities and hand-computed cases, and their independence of shards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.curate.diversity import types
from captioning.curate.diversity.bleu import self_bleu
from captioning.curate.diversity.figures import BINS, Diversity, DiversityFigures
from captioning.curate.diversity.images import vendi
from captioning.curate.draft import Draft
from captioning.curate.selection.ngrams import Ngrams
from captioning.curate.text_rules.words import words

WORD = st.sampled_from(["a", "red", "blue", "boat", "on", "the", "sea", "with", "sky", "near", "two"])
TEXT = st.lists(WORD, min_size=1, max_size=9).map(" ".join)
CORPUS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.lists(TEXT, min_size=1, max_size=5), max_size=6)
PERSPECTIVES = ("detail", "summary", "style")


def draft_of(images: dict[str, Sequence[str]], order: Sequence[int] | None = None) -> Draft:
    """A draft of texts by image; perspectives take turns."""
    rows: list[dict[str, Any]] = [
        {
            "key": f"place {key}",
            "image_id": key,
            "caption_id": f"{key}{i}",
            "text": text,
            "perspective": PERSPECTIVES[i % 3],
            "granularity": "word",
        }
        for key, texts in images.items()
        for i, text in enumerate(texts)
    ]
    rows = [rows[i] for i in order] if order is not None else rows
    names = ("key", "image_id", "caption_id", "text", "perspective", "granularity")
    return Draft({name: [row[name] for row in rows] for name in names})


def embed(draft: Draft, rows: Sequence[int]) -> np.ndarray:
    """Unit vectors that depend on the text alone."""
    vectors = np.stack([np.random.default_rng(len(draft.texts[row])).normal(size=8) for row in rows])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def figures(*drafts: Draft, statistic: Diversity | None = None) -> DiversityFigures:
    """The figures of these shards."""
    statistic = statistic or Diversity()
    return statistic.merge(statistic.of_shard(draft) for draft in drafts)


def bleu_by_hand(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 with smoothing 2, as its papers write it."""
    logs = []
    for n in range(1, 5):
        grams = Counter(tuple(candidate[i : i + n]) for i in range(len(candidate) - n + 1))
        if not grams:
            continue
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(tuple(reference[i : i + n]) for i in range(len(reference) - n + 1))
        matched = sum((grams & most).values())
        if n == 1 and not matched:
            return 0.0
        logs.append(math.log((matched + (n > 1)) / (grams.total() + (n > 1))))
    nearest = min(map(len, references), key=lambda length: (abs(length - len(candidate)), length))
    return min(1.0, math.exp(1 - nearest / len(candidate))) * math.exp(sum(logs) / len(logs))


@settings(deadline=None)
@given(st.lists(st.lists(TEXT, min_size=1, max_size=5), min_size=1, max_size=4))
def test_self_bleu_is_bleu_against_the_other_captions(images: list[list[str]]) -> None:
    open_BM = np.arange(6) < np.array([len(image) for image in images])[:, None]
    values = self_bleu(Ngrams([words(text) for image in images for text in image]), open_BM)
    for image, value in zip(images, values.tolist(), strict=True):
        spoken = [words(text) for text in image]
        if len(spoken) < 2:
            assert math.isnan(value)
            continue
        expected = [bleu_by_hand(own, spoken[:i] + spoken[i + 1 :]) for i, own in enumerate(spoken)]
        assert value == pytest.approx(sum(expected) / len(expected))


def test_vendi_counts_what_is_effectively_different() -> None:
    everything = np.ones((1, 4), bool)
    assert vendi(np.eye(4)[None], everything) == pytest.approx(4)
    assert vendi(np.ones((1, 4, 4)), everything) == pytest.approx(1)
    pairs = np.kron(np.eye(2), np.ones((2, 2)))[None]
    assert vendi(pairs, everything) == pytest.approx(2)
    assert vendi(np.eye(4)[None], np.array([[True, True, True, False]])) == pytest.approx(3)
    assert np.isnan(vendi(np.eye(4)[None], np.array([[True, False, False, False]])))


def test_figures_of_a_corpus_by_hand() -> None:
    result = figures(draft_of({"x": ["a red boat", "a red house"], "y": ["the sea"], "z": ["", "one one"]}))
    assert (result.images, result.captions) == (3, 5)
    assert result.mean("lexical_similarity") == pytest.approx((3 / 7 + 0) / 2, abs=1e-6)
    assert result.mean("distinct_1") == pytest.approx((4 / 6 + 1 / 2) / 2, abs=1e-6)
    assert result.mean("distinct_2") == pytest.approx((3 / 4 + 1) / 2, abs=1e-6)
    assert result.mean("text_similarity") is None, "there are no embeddings"
    assert result.growth()[-1] == (10, 7)
    assert result.growth(2)[-1] == (6, 5)
    assert result.distinct(3) == 1
    assert result.coverage() == {"detail": 1, "summary": 2 / 3}
    assert {name: np.flatnonzero(counts).tolist() for name, counts in result.lengths().items()} == {
        "detail": [0, 2, 3],
        "summary": [2, 3],
    }
    assert result.distribution("lexical_similarity").sum() == 2
    assert result.distribution("lexical_similarity")[int(3 / 7 * BINS)] == 1


def test_text_similarity_is_the_mean_over_images_of_the_mean_cosine() -> None:
    draft = draft_of({"x": ["a", "a b", "a b c"], "y": ["a", "a b"], "z": ["a"]})
    vectors = embed(draft, range(6))
    x = [vectors[i] @ vectors[j] for i, j in ((0, 1), (0, 2), (1, 2))]
    expected = (np.mean(x) + vectors[3] @ vectors[4]) / 2
    assert figures(draft, statistic=Diversity(embed)).mean("text_similarity") == pytest.approx(expected, abs=2e-6)


@settings(deadline=None)
@given(CORPUS, st.randoms(use_true_random=False), st.integers(0, 6))
def test_shards_and_order_do_not_matter(corpus: dict[str, list[str]], random: Any, cut: int) -> None:
    statistic = Diversity(embed)
    whole = figures(draft_of(corpus), statistic=statistic)
    order = list(range(sum(map(len, corpus.values()))))
    random.shuffle(order)
    keys = list(corpus)
    random.shuffle(keys)
    shards = [{key: corpus[key] for key in part} for part in (keys[:cut], keys[cut:])]
    for other in (
        figures(draft_of(corpus, order), statistic=statistic),
        figures(*(draft_of(shard) for shard in shards), statistic=statistic),
    ):
        assert +other.counts == +whole.counts
        assert +other.totals == +whole.totals
        assert [other.growth(n) for n in (1, 2, 3)] == [whole.growth(n) for n in (1, 2, 3)]


@settings(deadline=None)
@given(CORPUS)
def test_small_corpora_are_counted_exactly(corpus: dict[str, list[str]]) -> None:
    result = figures(draft_of(corpus))
    for order in (1, 2, 3):
        grams = [
            spoken[i : i + order]
            for texts in corpus.values()
            for spoken in map(words, texts)
            for i in range(len(spoken) - order + 1)
        ]
        assert result.distinct(order) == (len(set(grams)) / len(grams) if grams else None)


def test_large_vocabularies_are_estimated_within_their_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(types, "KEPT", 1024)
    rng = np.random.default_rng(0)
    corpus = {f"{i}": [" ".join(f"w{word}" for word in rng.integers(0, 20_000, 50))] for i in range(400)}
    result = figures(*(draft_of(dict(list(corpus.items())[start : start + 50])) for start in range(0, 400, 50)))
    ranked = sorted(corpus, key=types.rank)
    for tokens, kinds in result.growth()[-3:]:
        sample = [key for key in ranked if types.rank(key) < types.rank(ranked[tokens // 50 - 1]) + 1]
        exact = len({word for key in sample for word in words(corpus[key][0])})
        assert tokens == 50 * len(sample)
        assert kinds == pytest.approx(exact, rel=4 / math.sqrt(1024 * exact / 18_000)), "four standard errors"


def test_heaps_law_is_found_where_it_holds() -> None:
    rng = np.random.default_rng(1)
    corpus = {f"{i}": [" ".join(f"w{word}" for word in rng.zipf(1.5, 40) % 10**9)] for i in range(1500)}
    fitted = figures(draft_of(corpus)).heaps()
    assert fitted is not None
    assert 0.55 < fitted[1] < 0.8, "words drawn by Zipf's law of exponent 1.5 grow with about the power 2/3"
