"""The seam between tasks and the rest: a task whose figure is no mean of outcomes goes through everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation import benchmarks, intervals, report, table, tasks
from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.features import Needs
from evaluation.measure import evaluate
from evaluation.task import Card, Evaluation, Measurement, Subject
from pipeline import schemas
from pipeline.storage import Location
from tests.evaluation.test_features import NAMES, PREPROCESS, TINY
from training.model import HolisticCLIP, make_tokenizer


@dataclass(frozen=True)
class Overlap:
    """Intersection over union of all images together: a ratio of sums."""

    intersection_N: np.ndarray
    union_N: np.ndarray

    @property
    def n(self) -> int:
        return len(self.union_N)

    @property
    def value(self) -> float:
        return float(self.intersection_N.sum() / self.union_N.sum())

    def replicates(self, *, samples: int, seed: int) -> np.ndarray:
        total, whole = (
            intervals.replicates(part_N, samples=samples, seed=seed) for part_N in (self.intersection_N, self.union_N)
        )
        return np.asarray(total / whole)


class Segmentation:
    name = "segmentation"
    notes: Mapping[str, str] = {"Overlap": "Intersection over union."}

    def asks(self, benchmark: Benchmark) -> bool:
        return bool(benchmark.files)

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:
        return Needs([f"a text of its own for {benchmark.name}"])

    def measure(self, subject: Subject) -> tuple[list[Measurement], Any]:
        assert len(subject.features.texts(["a text of its own for squares"])) == 1
        overlap = Overlap(np.array([1.0, 0.0, 3.0, 2.0]), np.array([2.0, 2.0, 3.0, 5.0]))
        return [Measurement(self.name, "masks", "mean", "colour", "iou", 0.25, overlap)], "shown"

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        return {"iou": {"value": evaluation.measurements[-1].value, "chance": 0.25}}

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:
        return [Card("50", "%", "of all pixels overlap", "chance 25 %")]

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        return {"shown": [evaluation.shown[self.name] for evaluation in group]}


def test_a_task_of_another_kind_is_measured_tabled_and_reported(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "TASKS", (*tasks.TASKS, Segmentation()))
    monkeypatch.setattr(report, "TASKS", tasks.TASKS)
    templates = tmp_path / "templates"
    (templates / "tasks").mkdir(parents=True)
    (templates / "tasks" / "segmentation.html.j2").write_text("<h2>Segmentation</h2>{{ part.shown }}")
    monkeypatch.setattr(report, "SHARED", (*report.SHARED, templates))
    torch.manual_seed(0)
    encoder = Encoder("run", "f", "w", HolisticCLIP(TINY, NAMES).eval(), PREPROCESS, make_tokenizer(TINY), NAMES)
    config = EvaluateConfig(bootstrap_samples=100, device="cpu")
    found = evaluate(encoder, benchmarks.read(squares), config, Location.of(tmp_path / "cache"))
    rows = schemas.table(schemas.RESULTS, table.rows([found], config)).to_pylist()
    row = next(row for row in rows if row["task"] == "segmentation")
    assert (row["value"], row["n"], row["protocol"]) == (0.5, 4, "squares/masks")
    assert row["ci_low"] < 0.5 < row["ci_high"]
    assert table.headline([found])["run"]["squares"]["iou"]["value"] == 0.5
    page = report.render([found], config, "f" * 64)
    assert "of all pixels overlap" in page
    assert "<h2>Segmentation</h2>" in page
    assert "Intersection over union." in page
