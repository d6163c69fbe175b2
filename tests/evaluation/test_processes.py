"""Encoding by several processes gives the numbers of one, however the shards fall."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from evaluation import benchmarks, models, processes
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.features import EncodedBenchmark, Share, encode_share, features, missing_shards
from evaluation.measure import needs_of
from evaluation.processes import encode_together
from pipeline.storage import Location
from tests.evaluation.test_models import tiny_holism

SHARDS = EvaluateConfig(device="cpu", feature_shard=5, image_batch=3, text_batch=2)  # of 12 pictures: 5, 5, 2


def loadable(folder: Path) -> Encoder:
    again = partial(models.load, "ours", str(folder))
    return replace(again(), again=again)


def without_model(encoder: Encoder) -> Encoder:
    """It can read what is in the cache, and nothing else."""
    return replace(encoder, model=torch.nn.Identity())


def same(first: EncodedBenchmark, second: EncodedBenchmark) -> bool:
    return torch.equal(first.branch_NHD, second.branch_NHD) and torch.equal(first.text_TD, second.text_TD)


@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_shares_together_are_the_whole(
    squares: Path, tmp_path: Path, of: int, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder, benchmark, cache = loadable(tiny_holism(tmp_path / "m")), benchmarks.read(squares), tmp_path / "cache"
    needs, place = needs_of(benchmark, SHARDS), Location.of(cache)
    alone = features(encoder, benchmark, SHARDS, None, needs)
    assert missing_shards(encoder, benchmark, SHARDS, place) == 3
    for rank in range(of):
        encode_share(encoder, benchmark, SHARDS, place, needs, Share(rank, of))
    said, own = capsys.readouterr().err, sum((5, 5, 2)[::of])
    assert f"process 1 of {of}, 0/{own} images" in said, "each counts its own share, from nothing"
    assert missing_shards(encoder, benchmark, SHARDS, place) == 0
    assert same(features(without_model(encoder), benchmark, SHARDS, place, needs), alone)


@pytest.mark.slow
def test_three_processes_give_the_numbers_of_one(squares: Path, tmp_path: Path) -> None:
    encoder, benchmark = loadable(tiny_holism(tmp_path / "m")), benchmarks.read(squares)
    needs, place = needs_of(benchmark, SHARDS), Location.of(tmp_path / "cache")
    alone = features(encoder, benchmark, SHARDS, None, needs)
    encode_together(encoder, benchmark, SHARDS.model_copy(update={"processes": 3}), place, needs)
    assert same(features(without_model(encoder), benchmark, SHARDS, place, needs), alone)


def no_model() -> Encoder:
    raise MemoryError("no room for the model")


def test_what_processes_leave_undone_is_said_and_done_here(
    squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "process_pool", ThreadPoolExecutor)
    encoder, benchmark = loadable(tiny_holism(tmp_path / "m")), benchmarks.read(squares)
    needs, place = needs_of(benchmark, SHARDS), Location.of(tmp_path / "cache")
    several = SHARDS.model_copy(update={"processes": 2})
    encode_together(replace(encoder, again=no_model), benchmark, several, place, needs)
    assert "2 of 2 processes stopped before their share was encoded (no room for the model)" in capsys.readouterr().err
    assert same(features(encoder, benchmark, SHARDS, place, needs), features(encoder, benchmark, SHARDS, None, needs))
