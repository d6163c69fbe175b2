"""Embeddings of a frozen tower: made once, used in place of pictures, and the run is what it would be without."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from pipeline.config import build
from pipeline.errors import ConfigError, StoreError
from pipeline.ingest import shard_uris
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.training.conftest import make_inputs
from tests.training.test_launch import started
from tests.training.test_stage import stage_run
from tests.training.test_trainer import ALONE, figures
from training import frozen
from training.bundles import read_bundles
from training.config import RunConfig
from training.frozen import Embedder
from training.stage import run_train
from training.trainer import Trained, train

Recipe = Callable[..., dict[str, Any]]


@pytest.fixture
def tuning(tmp_path: Path, recipe: Recipe, tiny_architecture: dict[str, Any]) -> Recipe:
    """Locked-image tuning of the tiny towers, with embeddings kept."""
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**tiny_architecture).state_dict(), tmp_path / "start.pt")

    def make(**changes: Any) -> dict[str, Any]:
        locked = {"warm_start": str(tmp_path / "start.pt"), "freeze": ["image"], "branches": 1, "crop_scale": [1, 1]}
        return recipe(**{**locked, "losses": {"o2m": 1.0}, "cache_features": True, "epochs": 2, **changes})

    return make


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The samples whose pictures are read for an embedding."""
    samples: list[int] = []
    picture = Embedder._picture

    def watched(self: Embedder, sample: int) -> Any:
        samples.append(sample)
        return picture(self, sample)

    monkeypatch.setattr(Embedder, "_picture", watched)
    return samples


def run(folder: Path, recipe: dict[str, Any], name: str, count: int = 20) -> Trained:
    """With a picture that does not decode."""
    config = build(RunConfig, recipe)
    inputs = make_inputs(folder / f"inputs-{count}", count, damaged=(5,))
    bundles, reader = read_bundles(inputs["curate"], config.slots), ShardReader(shard_uris(inputs["ingest"]))
    return train("t", config, bundles, reader, Location.of(folder / name), ALONE, cache=Location.of(folder / "cache"))


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": {"o2m": 1.0, "distillation": 1.0}, "ema": 0.9},
        {"micro_batch": 2, "workers": 1, "precision": "bf16"},
    ],
)
def test_a_run_is_what_it_is_without_kept_embeddings(tmp_path: Path, tuning: Recipe, changes: dict[str, Any]) -> None:
    exact = 1e-4 if "precision" not in changes else 2e-2
    kept = run(tmp_path, tuning(**changes), "kept")
    without = run(tmp_path, tuning(**changes, cache_features=False), "without")
    assert kept.unreadable == without.unreadable > 0
    assert kept.examples[0].startswith("0005.jpg: ")
    for one, other in zip(figures(kept.metrics), figures(without.metrics), strict=True):
        del one["tokens"], other["tokens"]  # captions of what does not decode are encoded, and count nowhere
        assert one == pytest.approx(other, rel=exact, abs=exact)
    start = torch.load(tmp_path / "start.pt")
    assert torch.equal(kept.model.state_dict()["visual.conv1.weight"], start["visual.conv1.weight"])
    assert not torch.equal(kept.model.state_dict()["text_projection"], start["text_projection"])


def test_embeddings_are_made_once_and_for_new_pictures_alone(
    tmp_path: Path, tuning: Recipe, encoded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, tuning(), "first")
    assert len(encoded) == len(set(encoded)) == 20
    assert "train t: 20 of 20 pictures have no embedding in" in capsys.readouterr().err
    encoded.clear()
    run(tmp_path, tuning(lr=1e-4, seed=3), "other")
    assert encoded == []
    run(tmp_path, tuning(), "more", count=26)
    assert len(encoded) == 6
    encoded.clear()
    run(tmp_path, tuning(image_mean=[0.5, 0.5, 0.5]), "seen otherwise")
    assert len(encoded) == 20
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_start_after_a_kill_makes_what_is_missing(
    tmp_path: Path, tuning: Recipe, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "SEGMENT", 8)
    monkeypatch.setattr(frozen, "AT_ONCE", 4)
    picture = Embedder._picture

    def lost(self: Embedder, sample: int) -> Any:
        if sample == 17:
            raise StoreError("the shard is gone")
        return picture(self, sample)

    with monkeypatch.context() as patched:
        patched.setattr(Embedder, "_picture", lost)
        with pytest.raises(StoreError, match="the shard is gone"):
            run(tmp_path, tuning(), "run")
    encoded.clear()
    run(tmp_path, tuning(), "run")
    assert sorted(encoded) == [16, 17, 18, 19]
    encoded.clear()
    segment = max((tmp_path / "cache").glob("*/*"), key=lambda file: file.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    run(tmp_path, tuning(seed=1), "again")
    assert len(encoded) == 8


def test_a_damaged_segment_is_named(tmp_path: Path, tuning: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, tuning(), "run")
    (segment,) = (tmp_path / "cache").glob("*/*")
    segment.write_bytes(segment.read_bytes()[:-7])
    capsys.readouterr()
    assert run(tmp_path, tuning(seed=1), "again").steps == 6
    assert f"warning: {segment} is damaged and is made again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"freeze": ["text"]}, "the image tower is trained; set freeze: [image]"),
        ({"branches": 3, "losses": {"m2m": 1.0}}, "several branches own weights in it, which are trained"),
        ({"crop_scale": [0.9, 1.0]}, "each epoch crops anew; set crop_scale: [1, 1]"),
        ({"losses": {"o2m": 1.0, "text_conditioned": 1.0}}, "text_conditioned reads the patches; leave it out"),
    ],
)
def test_what_does_not_stay_the_same_is_not_kept(tuning: Recipe, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build(RunConfig, tuning(**changes))
    assert f"cache_features needs embeddings that stay the same, but {why}" in str(raised.value)


@pytest.mark.slow
def test_ranks_share_the_work(tmp_path: Path, tuning: Recipe) -> None:
    found = started(tmp_path / "ranks", tuning())
    alone = run_train(stage_run(tmp_path / "alone", tuning(cache_features=False)))
    assert len(list((tmp_path / "ranks" / "ws" / "train" / "index" / "embeddings").glob("*/*"))) == 2
    of_ranks, of_one = (figures((Path(o.store) / o.parts[-1].name).read_bytes()) for o in (found, alone))
    for one, other in zip(of_ranks, of_one, strict=True):
        del one["tokens"], other["tokens"]
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
