"""Composition: outcomes with known answers, ties at chance, and the whole way from files to a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from evaluation import benchmarks, composition, report, table
from evaluation.config import EvaluateConfig, SuiteAt
from evaluation.encoder import Encoder
from evaluation.measure import evaluate
from pipeline import pictures, schemas
from pipeline.storage import Location
from tests.evaluation import data_sets
from tests.evaluation.test_features import NAMES, PREPROCESS, TINY
from training.model import HolisticCLIP, make_tokenizer


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        ([0.9], [0.1], 1.0),
        ([0.1], [0.9], 0.0),
        ([0.5], [0.5], 1 / 2),
        ([0.5], [0.5, 0.5, 0.5, 0.5], 1 / 5),
        ([0.9, 0.5], [0.5], 1 / 2),
        ([0.5, 0.5], [0.5], 1 / 3),
        ([0.9, 0.4], [0.5], 0.0),
        ([0.5], [0.2, 0.5, 0.1], 1 / 2),
    ],
)
def test_all_right_texts_stand_above_all_wrong_ones(right: list[float], wrong: list[float], expected: float) -> None:
    assert composition.answered(np.array(right), np.array(wrong)) == pytest.approx(expected)


def test_chance_is_what_random_scores_give() -> None:
    rng = np.random.default_rng(0)
    for right, wrong in ((1, 1), (1, 4), (2, 1)):
        drawn = [composition.answered(rng.random(right), rng.random(wrong)) for _ in range(4000)]
        assert np.mean(drawn) == pytest.approx(composition.chance(right, wrong), abs=0.03)
        assert composition.answered(np.ones(right), np.ones(wrong)) == composition.chance(right, wrong)
    random = composition.paired(rng.random((4000, 2, 2)))
    for group, expected in {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}.items():
        assert composition.paired_chance()[group] == pytest.approx(expected)
        assert random[group].mean() == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("scores", "text", "image", "group"),
    [
        ([[0.9, 0.1], [0.1, 0.9]], 1, 1, 1),
        ([[0.9, 0.8], [0.1, 0.2]], 1, 0, 0),
        ([[0.9, 0.1], [0.95, 0.96]], 1, 0, 0),
        ([[0.3, 0.2], [0.1, 0.4]], 1, 1, 1),
        ([[0.5, 0.6], [0.2, 0.9]], 0, 1, 0),
        ([[0.5, 0.5], [0.1, 0.9]], 0.5, 1, 0.5),
    ],
)
def test_pairs(scores: list[list[float]], text: float, image: float, group: float) -> None:
    found = composition.paired(np.array([scores]))
    assert [found[name][0] for name in composition.GROUPS] == pytest.approx([text, image, group])


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder("run", "f", "w", HolisticCLIP(TINY, NAMES).eval(), PREPROCESS, make_tokenizer(TINY), NAMES)


def test_choices_are_measured_tabled_and_reported(encoder: Encoder, tmp_path: Path) -> None:
    data_sets.sugarcrepe(tmp_path, data_sets.SUGARCREPE_PP, second=True)
    config = EvaluateConfig(bootstrap_samples=100, device="cpu")
    benchmark = benchmarks.read(SuiteAt(suite="sugarcrepe_pp", root=str(tmp_path)))
    found = evaluate(encoder, benchmark, config, Location.of(tmp_path / "cache"))
    rows = schemas.table(schemas.RESULTS, table.rows([found], config)).to_pylist()
    assert {row["protocol"] for row in rows} == {"sugarcrepe_pp/choices"}
    assert {row["query"] for row in rows} == {"swap_attribute", *data_sets.SUGARCREPE_PP} - {"swap_atribute"}
    assert {row["n"] for row in rows} == {4}
    assert {row["readout"] for row in rows} >= {"mean", "max", f"branch:{NAMES[0]}"}
    assert [row["chance"] for row in rows] == pytest.approx([1 / 3] * len(rows))
    page = report.render([found], config, "f" * 32)
    assert "<h2>Composition</h2>" in page
    assert "chosen right and 95 %" in page

    for choices in benchmark.choices:
        answers = found.shown["composition"][choices.kind]
        assert sorted(answer.question for answer in answers) == list(range(len(choices.right)))
        for answer in answers:
            assert (answer.apart > 0) == (answer.outcome == 1)
    pictured = page.split("<h3>Answered and not</h3>")[1].split("<h2>")[0]
    for outcome, is_hit in (("hit", True), ("miss", False)):
        drawn = [[answer for answer in answers if (answer.outcome == 1) == is_hit]
                 for answers in found.shown["composition"].values()]  # fmt: skip
        assert pictured.count(f">{outcome}<") == sum(min(2, len(answers)) for answers in drawn)

    served = next(row for row in rows if (row["readout"], row["query"]) == ("mean", "swap_object"))
    assert served["value"] == pytest.approx(_expected(encoder, benchmark, "swap_object"))


def _expected(encoder: Encoder, benchmark: benchmarks.Benchmark, kind: str) -> float:
    """Question by question, straight from the model."""
    choices = next(choices for choices in benchmark.choices if choices.kind == kind)
    right = 0
    with torch.inference_mode():
        for image, its, others in zip(choices.image_Q, choices.right, choices.wrong, strict=True):
            pixels = encoder.preprocess(pictures.decode(benchmark.image(int(image)).read())[0])[None]
            vector = F.normalize(F.normalize(encoder.model.encode_branches(pixels), dim=-1).mean(dim=1), dim=-1)
            score = (F.normalize(encoder.model.encode_text(encoder.tokenizer([*its, *others])), dim=-1) @ vector.T)[
                :, 0
            ]
            right += bool(score[: len(its)].min() > score[len(its) :].max())
    return right / len(choices.right)


def test_pairs_are_measured_tabled_and_reported(encoder: Encoder, tmp_path: Path) -> None:
    data_sets.winoground(tmp_path)
    config = EvaluateConfig(bootstrap_samples=100, device="cpu")
    benchmark = benchmarks.read(SuiteAt(suite="winoground", root=str(tmp_path)))
    found = evaluate(encoder, benchmark, config, Location.of(tmp_path / "cache"))
    chance = {figure.metric: round(figure.chance, 4) for figure in found.measurements}
    assert chance == {"choice_accuracy": 0.5, "pair_text": 0.25, "pair_image": 0.25, "pair_group": 0.1667}
    n = {figure.metric: figure.estimate.n for figure in found.measurements}
    assert n == {"choice_accuracy": 6, "pair_text": 3, "pair_image": 3, "pair_group": 3}
    page = report.render([found], config, "f" * 32)
    assert "<h3>Pairs: group</h3>" in page
