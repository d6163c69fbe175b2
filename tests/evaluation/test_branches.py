"""The branch × perspective matrix: the diagonal, ties, and models without branches."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evaluation import branches, measure
from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.contents import Queries, Spec
from evaluation.encoder import Encoder
from evaluation.features import EncodedBenchmark
from evaluation.tasks import retrieval
from pipeline.storage import Location

NAMES = ("style", "nouns", "alt_text")
IMAGES = 30


def specialised(signal: dict[str, float], monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] = NAMES) -> Any:
    """A model whose branch p knows perspective p's texts as well as `signal` says, and the other texts not at all."""
    generator = torch.Generator().manual_seed(0)
    own = np.arange(IMAGES)
    queries = tuple(Queries(p, tuple(f"{p} {i}" for i in own), own, own) for p in ("nouns", "style", "mood"))
    benchmark = Benchmark(Spec(name="x"), "d", tuple(map(str, own)), (), {}, queries)
    text_TD = F.normalize(torch.randn(3 * IMAGES, 64, generator=generator), dim=-1)
    row = {text: i for i, text in enumerate(text for asked in queries for text in asked.texts)}
    branch_NHD = F.normalize(torch.randn(IMAGES, len(names), 64, generator=generator), dim=-1)
    for name, strength in signal.items():
        known_ND = text_TD[[row[f"{name} {i}"] for i in own]]
        mixed_ND = strength * known_ND + (1 - strength) * branch_NHD[:, names.index(name)]
        branch_NHD[:, names.index(name)] = F.normalize(mixed_ND, dim=-1)
    monkeypatch.setattr(measure, "features", lambda *_: EncodedBenchmark(branch_NHD, text_TD, row))
    monkeypatch.setattr(measure, "known", lambda _: ())  # there are no pictures
    encoder = Encoder("run", "f", "w", None, lambda _: torch.empty(0), lambda _: torch.empty(0), names)
    return measure.evaluate(encoder, benchmark, EvaluateConfig(), Location.of("nowhere"))


def test_a_specialised_branch_wins_its_own_perspective(monkeypatch: pytest.MonkeyPatch) -> None:
    found = branches.matrix(specialised({"style": 1.0, "nouns": 1.0}, monkeypatch))
    assert found is not None
    assert found.names == NAMES
    assert found.perspectives == ("style", "nouns", "mood")  # in the branches' order, so that own pairs are a diagonal
    assert found.value_RP[0, 0] == found.value_RP[1, 1] == 1
    assert found.value_RP[0, 1] < 0.3
    assert found.own_wins() == ("style", "nouns")
    assert found.own_ties() == ()
    assert found.chance_P == pytest.approx([1 / IMAGES] * 3)


def test_both_directions_have_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = specialised({"nouns": 1.0}, monkeypatch)
    found = branches.matrix(evaluation, retrieval.IMAGE_TO_TEXT)
    assert found is not None
    assert found.own_wins() == ("nouns",)


def test_a_branch_that_is_only_as_good_as_another_is_called_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = specialised({"style": 1.0}, monkeypatch)
    found = branches.matrix(evaluation)
    assert found is not None
    found.value_RP[:] = 0.5
    assert (found.own_wins(), found.own_ties()) == ((), ("style", "nouns"))


def test_one_branch_has_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    assert branches.matrix(specialised({"style": 1.0}, monkeypatch, names=("style",))) is None
