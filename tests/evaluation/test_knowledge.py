"""What each branch knows: asked with its own texts, its nearest captions, the picture as the model takes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation import benchmarks, knowledge
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.knowledge import DARKEST, NEAREST, PICTURES, as_taken, known, lit, true_texts
from evaluation.measure import encoded
from evaluation.task import Subject
from tests.evaluation.conftest import TINY
from tests.evaluation.test_features import PREPROCESS
from training.model import HolisticCLIP, make_tokenizer

NAMES = ("colour", "detail", "size")
CONFIG = EvaluateConfig(bootstrap_samples=100, device="cpu")


def subject(squares: Path, names: tuple[str, ...] = NAMES) -> Subject:
    torch.manual_seed(0)
    encoder = Encoder("run", "f", "w", HolisticCLIP(TINY, names).eval(), PREPROCESS, make_tokenizer(TINY), names)
    return encoded(encoder, benchmarks.read(squares), CONFIG, None)


def test_every_branch_is_asked_with_a_true_text_of_its_own(squares: Path) -> None:
    asked = subject(squares)
    found = known(asked)
    assert len({row.file for row in found}) == PICTURES
    for row in found:
        true = true_texts(asked.benchmark, asked.benchmark.files.index(row.file))
        assert set(true) == {"colour", "detail"}
        assert [view.branch for view in row.views] == list(NAMES)
        assert [view.asked.perspective for view in row.views] == ["colour", "detail", "colour"], "size has no texts"
        assert all(view.asked.text == true[view.asked.perspective][0] for view in row.views)
        assert all(view.lit.startswith("data:image/jpeg") for view in row.views)
    assert [row.file for row in known(asked)] == [row.file for row in found]


def test_nearest_captions_are_those_of_the_highest_cosine(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "BLOCK", 4)
    asked = subject(squares)
    texts = [text for queries in asked.benchmark.queries for text in queries.texts]
    for row in known(asked):
        image = asked.benchmark.files.index(row.file)
        true = {text for texts in true_texts(asked.benchmark, image).values() for text in texts}
        score_HT = asked.features.branch_NHD[image] @ asked.features.texts(texts).T
        for view, score_T in zip(row.views, score_HT, strict=True):
            best = [texts[i] for i in score_T.argsort(descending=True)[:NEAREST]]
            assert [caption.text for caption in view.nearest] == best
            assert [caption.is_true for caption in view.nearest] == [text in true for text in best]
            assert view.cosine == pytest.approx(float(score_T[texts.index(view.asked.text)]), abs=1e-5)


def test_one_branch_or_no_texts_have_nothing_to_show(squares: Path) -> None:
    assert known(subject(squares, ("image",))) == ()
    asked = subject(squares)
    assert known(replace(asked, benchmark=replace(asked.benchmark, queries=()))) == ()


def test_the_picture_is_shown_as_the_model_takes_it(squares: Path) -> None:
    encoder = subject(squares).encoder
    wide = Image.new("RGB", (64, 32), (200, 10, 10))
    wide.paste((10, 180, 30), (0, 0, 12, 32))  # cut off by the centre crop
    shown = np.asarray(as_taken(encoder, encoder.preprocess(wide))).astype(int)
    assert np.abs(shown - (200, 10, 10)).max() <= 2


def test_what_is_relevant_stays_bright() -> None:
    relevance_RC = np.full((4, 4), -0.5)
    relevance_RC[0, 3] = 0.7
    picture = np.asarray(lit(Image.new("RGB", (96, 96), (200, 200, 200)), relevance_RC))
    assert picture[6, 90].min() > 180
    assert abs(int(picture[90, 6].max()) - round(200 * DARKEST)) <= 1
    nothing = np.asarray(lit(Image.new("RGB", (96, 96), (200, 200, 200)), np.zeros((4, 4))))
    assert (nothing == round(200 * DARKEST)).all()
