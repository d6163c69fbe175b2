"""Probes: what is linearly there is found, what is not stays at chance, and nothing of the test split is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from evaluation import benchmark_writer, benchmarks, probes, report, table
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.measure import evaluate
from evaluation.probes import Split
from pipeline import schemas
from pipeline.errors import InputError
from pipeline.storage import Location
from tests.evaluation.conftest import COLOURS
from tests.evaluation.test_features import NAMES, PREPROCESS, TINY
from training.model import HolisticCLIP, make_tokenizer


def blobs(n: int, noise: float, seed: int) -> Split:
    """Three classes around three directions of eight."""
    rng = np.random.default_rng(seed)
    class_N = rng.integers(3, size=n)
    vector_ND = np.eye(8)[class_N] + noise * rng.normal(size=(n, 8))
    return Split(vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True), class_N)


def test_what_is_linearly_there_is_found_and_noise_is_not() -> None:
    train, test = blobs(300, 0.2, 0), blobs(200, 0.2, 1)
    assert probes.linear(train, test, seed=0).mean() > 0.97
    assert probes.few_shot(train, test, 4, seed=0).mean() > 0.9
    shuffled = Split(train.vector_ND, np.random.default_rng(2).permutation(train.class_N))
    assert probes.linear(shuffled, test, seed=0).mean() < 0.6


def test_more_shots_do_better_and_draws_follow_from_the_seed() -> None:
    train, test = blobs(300, 0.45, 0), blobs(400, 0.45, 1)
    by_shots = [probes.few_shot(train, test, shots, seed=0).mean() for shots in (1, 16)]
    assert by_shots[0] < by_shots[1] <= probes.linear(train, test, seed=0).mean() + 0.03
    assert set(np.round(probes.few_shot(train, test, 1, seed=0) * 3, 6)) <= {0.0, 1.0, 2.0, 3.0}
    assert (probes.few_shot(train, test, 2, seed=5) == probes.few_shot(train, test, 2, seed=5)).all()


def test_the_strength_is_chosen_where_it_matters() -> None:
    """Many dimensions of noise: a weak penalty fits them; the chosen one does no worse than the weakest."""
    rng = np.random.default_rng(0)

    def noisy(n: int) -> Split:
        class_N = rng.integers(2, size=n)
        return Split(np.concatenate([class_N[:, None] * 1.0, 2 * rng.normal(size=(n, 60))], axis=1), class_N)

    train, test = noisy(120), noisy(500)
    weakest = probes._right(train, test, probes.STRENGTHS[-1]).mean()
    assert probes.linear(train, test, seed=0).mean() >= weakest


def write_folders(root: Path) -> Path:
    """A suite of one's own over folders of classes, with a training split."""
    number = 0
    for split, copies in (("train", 5), ("test", 3)):
        for name, paint in COLOURS.items():
            for _ in range(copies):
                number += 1
                path = root / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (24, 24), tuple(min(255, value + number) for value in paint)).save(path)
    suite = {
        "name": "colours", "split": "test", "train": "train",
        "root": ".",
        "layout": {"kind": "image_folder", "images": "{split}", "templates": ["a {} square"], "task": "colour"},
    }  # fmt: skip
    (root / "colours.yaml").write_text(yaml.safe_dump(suite))
    return root / "colours.yaml"


def test_probes_are_measured_tabled_and_reported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Encoder("run", "f", "w", HolisticCLIP(TINY, NAMES).eval(), PREPROCESS, make_tokenizer(TINY), NAMES)
    benchmark = benchmarks.read(str(write_folders(tmp_path)))
    assert benchmark.train is not None
    assert (len(benchmark.files), len(benchmark.train.files)) == (9, 15)
    config = EvaluateConfig(bootstrap_samples=100, device="cpu", probes=("linear", 2, 16))
    found = evaluate(encoder, benchmark, config, Location.of(tmp_path / "cache"))
    rows = [
        row
        for row in schemas.table(schemas.RESULTS, table.rows([found], config)).to_pylist()
        if row["task"] == "probes"
    ]
    assert {row["readout"] for row in rows} == {"mean", *(f"branch:{name}" for name in NAMES)}
    assert {(row["query"], row["protocol"]) for row in rows} == {
        ("colour, linear", "colours/linear_probe_of_15_images"),
        ("colour, 2 shots", "colours/2_shot_probe_3_draws"),
    }, "there are no 16 images of a class"
    assert {row["n"] for row in rows} == {9}
    linear = next(
        row for row in rows if (row["readout"], row["query"], row["metric"]) == ("mean", "colour, linear", "accuracy")
    )
    assert linear["value"] == 1.0, "colours are linear in pixels, even through random weights"
    assert "<h2>Probes</h2>" in report.render([found], config, "f" * 32)

    benchmark_writer.write(benchmark, Location.of(tmp_path / "folder"))
    again = benchmarks.read(str(tmp_path / "folder"))
    assert again.train is not None
    assert again.train.files == benchmark.train.files
    assert again.train.labels["colour"].tolist() == benchmark.train.labels["colour"].tolist()
    before = again.digest
    (tmp_path / "folder" / "train" / "images" / benchmark.train.files[0]).write_bytes(b"other")
    assert benchmarks.check(str(tmp_path / "folder")) != before


def test_a_training_split_has_the_same_classes(tmp_path: Path) -> None:
    suite = write_folders(tmp_path)
    (tmp_path / "train" / "red").rename(tmp_path / "train" / "mauve")
    with pytest.raises(InputError, match="the training split of colours has other classes"):
        benchmarks.check(str(suite))
