"""The doctor measures a run's own batches, and names what limits and what to change."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import build
from pipeline.ingest import shard_uris
from pipeline.shards import ShardReader
from tests.training.conftest import make_inputs
from training import data_doctor
from training.bundles import read_bundles
from training.config import RunConfig
from training.data_doctor import PARTS, Diagnosis, diagnose
from training.threads import wait_without_spinning

Recipe = Callable[..., dict[str, Any]]


def found(read: float = 0.1, decode: float = 1.0, waiting: float = 0.0, **changes: Any) -> Diagnosis:
    """Of 100 images a step, in seconds of 1,000 images."""
    cpu = dict(zip(PARTS, (read, decode, 0.1, 0.1), strict=True))
    wall = {**cpu, "read": read + waiting}
    facts = {"images": 100, "ranks": 1, "workers": 1, "cores": 8, "loader": 0.13, "training": 0.05}
    return Diagnosis(**{**facts, **changes}, cpu=cpu, wall=wall)


@pytest.mark.parametrize(
    ("diagnosis", "limit", "advice"),
    [
        (found(training=0.2), "training", "training itself limits"),
        (found(), "decode", "set train.workers to 3"),
        (found(ranks=4), "decode", "ingest smaller pictures"),
        (found(cores=2), "decode", "ingest smaller pictures"),
        (found(waiting=3.0), "read", "most of it is waiting: .* or set train.workers to 9"),
        (found(read=2.0), "read", "read limits: set train.workers to 7"),
        (found(read=2.0, workers=7), "read", "no cores for more workers"),
    ],
)
def test_what_limits_is_named_with_one_change(diagnosis: Diagnosis, limit: str, advice: str) -> None:
    assert diagnosis.limit == limit
    (line,) = [line for line in diagnosis.text().splitlines() if "limits" in line]
    assert line == diagnosis.advice
    assert re.search(advice, line)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_is_measured_in_parts(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(data_doctor, "IMAGES", 60)
    monkeypatch.setattr(data_doctor, "STEPS", 3)
    config, inputs = build(RunConfig, recipe(workers=workers, freeze=[])), make_inputs(tmp_path, 20, damaged=(3,))
    bundles, reader = read_bundles(inputs["curate"], config.slots), ShardReader(shard_uris(inputs["ingest"]))
    diagnosis = diagnose(config, bundles, reader, ranks=2)
    assert (diagnosis.images, diagnosis.ranks, diagnosis.workers) == (3, 2, workers)
    assert all(diagnosis.cpu[part] > 0 and diagnosis.wall[part] > 0 for part in PARTS)
    assert diagnosis.cpu["decode"] > diagnosis.cpu["tokens"] / 10
    assert diagnosis.loader > 0
    assert diagnosis.training > 0
    assert "a step of 6 images on 2 ranks" in diagnosis.text()


def test_threads_that_spin_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosis = found(on_cpu=True, threads=2)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert "OMP_WAIT_POLICY is active, so torch's 2 threads spin" in diagnosis.text()
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert "OMP_WAIT_POLICY is not set" in diagnosis.text()
    assert "OMP_WAIT_POLICY" not in found(on_cpu=True, threads=1).text()
    wait_without_spinning()
    assert "OMP_WAIT_POLICY" not in diagnosis.text()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    wait_without_spinning()  # what the user says stands
    assert "OMP_WAIT_POLICY is active" in diagnosis.text()
