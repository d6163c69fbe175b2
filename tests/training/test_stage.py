"""The train stage: a commit per run, nothing trained twice, and a model that loads as open_clip's do."""

import io
import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from PIL import Image

import training
from pipeline.config import build
from pipeline.errors import InputError, StoreError
from pipeline.stage import StageRun
from pipeline.storage import Location
from pipeline.workspace import Workspace
from tests.training.conftest import make_inputs
from training.config import TrainConfig
from training.saving import newest_checkpoint
from training.stage import STAGE, run_fingerprint, run_train

Recipe = Callable[..., dict[str, Any]]


def stage_run(folder: Path, recipe: dict[str, Any], inputs: str = "inputs", **services: Any) -> StageRun:
    made = make_inputs(folder / inputs, 18, damaged=(2,))
    workspace = Workspace(str(folder / "ws"))
    return StageRun(build(TrainConfig, recipe, source="train"), made, workspace, "f", services=services)


def written_checkpoint(folder: Path, step: int) -> bytes:
    """What is in a checkpoint, once it is written."""
    deadline = time.monotonic() + 30
    while not (found := list((folder / "ws" / "train").glob(f"holism-*/checkpoints/step-{step:09d}.pt"))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found[0].read_bytes()


RUNS = {"holism": {}, "baseline": {"slots": ["alt_text"], "losses": {"o2o": 1.0}, "epochs": 2}}


def test_runs_are_committed_side_by_side_and_trained_once(tmp_path: Path, recipe: Recipe) -> None:
    seen: list[tuple[str, int]] = []

    def watch(name: str, _model: Any, step: int) -> None:
        seen.append((name, step))

    first = run_train(stage_run(tmp_path, recipe(runs=RUNS, checkpoint_every=5), on_checkpoint=watch))
    assert set(first.detail["runs"]) == {"holism", "baseline"}
    assert first.detail["runs"]["holism"]["branches"] == ["alt_text", "detail", "style"]
    assert first.detail["runs"]["baseline"]["slots"] == ["alt_text"]
    assert first.counts["holism"]["steps"] == 9
    assert first.counts["baseline"]["images seen"] == 36
    assert seen == [("holism", 5), ("baseline", 5)]
    assert any("could not be decoded, for example 0002.jpg" in warning for warning in first.warnings)
    written = {part.name: (Path(first.store) / part.name).stat().st_mtime_ns for part in first.parts}
    assert len(written) == 6
    assert not list(Path(first.store).glob("*/checkpoints/*"))

    wider = {**RUNS, "o2m": {"branches": 1, "losses": {"o2m": 1.0}, "epochs": 1}}
    second = run_train(stage_run(tmp_path, recipe(runs=wider, checkpoint_every=2, log_every=1), on_checkpoint=watch))
    assert {name for name, _ in seen[2:]} == {"o2m"}
    assert {name: (Path(first.store) / name).stat().st_mtime_ns for name in written} == written
    assert second.counts["holism"] == first.counts["holism"]
    assert second.warnings[: len(first.warnings)] == first.warnings  # what was wrong is said again


def test_a_slot_without_any_caption_is_warned_of(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the terminal, since it may be a slip of the pen, and in the manifest."""
    settings = recipe(epochs=1, slots=["alt_text", "detial", "mood"])
    outcome = run_train(stage_run(tmp_path, settings))
    said = "no image has a caption for train.slots detial, mood"
    assert any(said in warning for warning in outcome.warnings)
    assert f"train holism: warning: {said}" in capsys.readouterr().err
    assert not any("no image has" in warning for warning in run_train(stage_run(tmp_path, recipe(epochs=1))).warnings)


def test_other_weights_under_the_same_name_are_another_run(
    tmp_path: Path, recipe: Recipe, tiny_architecture: dict[str, Any]
) -> None:
    folders = []
    for seed in (0, 1, 1):
        torch.manual_seed(seed)
        torch.save(open_clip.CLIP(**tiny_architecture).state_dict(), tmp_path / "start.pt")
        settings = recipe(epochs=1, warm_start=str(tmp_path / "start.pt"))
        folders.append(run_train(stage_run(tmp_path, settings)).detail["runs"]["holism"]["folder"])
    assert folders[0] != folders[1] == folders[2]


def test_a_run_without_its_weights_is_trained_again(tmp_path: Path, recipe: Recipe) -> None:
    first = run_train(stage_run(tmp_path, recipe(epochs=1)))
    weights = next(Path(first.store).glob("*/model/model.safetensors"))
    original = weights.read_bytes()
    weights.unlink()
    run_train(stage_run(tmp_path, recipe(epochs=1)))
    assert weights.read_bytes() == original


@pytest.mark.parametrize("kind", ["mlp", "query"])
def test_every_kind_of_branch_trains_and_loads(tmp_path: Path, recipe: Recipe, kind: str) -> None:
    outcome = run_train(stage_run(tmp_path, recipe(epochs=2, branch_kind=kind, branch_blocks=1)))
    model, _, _ = training.load(f"{outcome.store}/{outcome.detail['runs']['holism']['folder']}")
    assert (model.options.kind, model.options.blocks, model.slots) == (kind, 1, ("alt_text", "detail", "style"))
    branches_BHD = model.encode_branches(torch.randn(2, 3, 32, 32))
    assert branches_BHD.shape == (2, 3, 24)
    assert not torch.allclose(branches_BHD[:, 0], branches_BHD[:, 1], atol=1e-3)


def test_a_model_from_before_there_were_kinds_loads_as_it_was(tmp_path: Path, recipe: Recipe) -> None:
    outcome = run_train(stage_run(tmp_path, recipe(epochs=1, branch_kind="cls", isolation="full")))
    folder = Path(outcome.store) / outcome.detail["runs"]["holism"]["folder"]
    image_BCSS = torch.randn(2, 3, 32, 32)
    expected = training.load(folder)[0].encode_branches(image_BCSS)
    description = json.loads((folder / "config.json").read_text())
    options = description.pop("branch_options")
    for later in ("text_pooling", "weights", "checksum"):
        del description[later]
    description["format"] = 1
    description |= {"isolation": options["isolation"], "projection": options["projection"]}
    (folder / "config.json").write_text(json.dumps(description))
    model, _, _ = training.load(folder)
    assert (model.options.kind, model.options.isolation) == ("cls", "full")
    assert torch.equal(model.encode_branches(image_BCSS), expected)


def test_a_model_loads_with_its_preprocessing_and_tokenizer(tmp_path: Path, recipe: Recipe) -> None:
    outcome = run_train(stage_run(tmp_path, recipe(epochs=1, branch_kind="cls", isolation="full")))
    model, preprocess, tokenizer = training.load(f"{outcome.store}/{outcome.detail['runs']['holism']['folder']}")
    assert (model.slots, model.options.isolation, model.training) == (("alt_text", "detail", "style"), "full", False)
    image = preprocess(Image.new("RGB", (60, 40), (200, 10, 10)))
    assert image.shape == (3, 32, 32)
    with torch.no_grad():
        assert model.encode_branches(image[None]).shape == (1, 3, 24)
        assert model.encode_image(image[None]).shape == model.encode_text(tokenizer(["a red plane"])).shape == (1, 24)


def test_a_checkpoint_loads_as_a_model_too(tmp_path: Path, recipe: Recipe) -> None:
    kept: dict[str, Any] = {}

    def keep(name: str, model: Any, step: int) -> None:
        kept["file"] = tmp_path / "kept.pt"
        kept["file"].write_bytes(written_checkpoint(tmp_path, step))
        kept["weights"] = {key: value.clone() for key, value in model.state_dict().items()}

    run_train(stage_run(tmp_path, recipe(epochs=1, checkpoint_every=2), on_checkpoint=keep))
    model, _, _ = training.load(kept["file"])
    assert all(torch.equal(value, kept["weights"][key]) for key, value in model.state_dict().items())


def test_what_is_no_model_is_named(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(InputError, match="is not a model folder"):
        training.load(tmp_path)
    with pytest.raises(InputError, match="no checkpoint at"):
        training.load(tmp_path / "absent.pt")
    (tmp_path / "step-000000001.pt").write_bytes(b"torn")
    with pytest.raises(StoreError, match=r"no checkpoint in .* is whole"):
        newest_checkpoint(Location.of(tmp_path))
    outcome = run_train(stage_run(tmp_path, recipe(epochs=1)))
    folder = Path(outcome.store) / outcome.detail["runs"]["holism"]["folder"]
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(StoreError, match="is damaged"):
        training.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_model_with_a_flipped_bit_is_not_used_and_is_made_again(tmp_path: Path, recipe: Recipe, name: str) -> None:
    first = run_train(stage_run(tmp_path, recipe(epochs=1)))
    folder = Path(first.store) / first.detail["runs"]["holism"]["folder"]
    whole, rng = (folder / name).read_bytes(), random.Random(1)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for _ in range(40):
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (copy / name).write_bytes(data)
        with pytest.raises(StoreError, match=r"is damaged|format .*, this version reads"):
            training.load(copy)
    (folder / name).write_bytes(data)
    again = run_train(stage_run(tmp_path, recipe(epochs=1)))
    assert (folder / name).read_bytes() == whole
    assert again.digest == first.digest


def test_a_checkpoint_with_a_flipped_bit_is_not_gone_on_from(tmp_path: Path, recipe: Recipe) -> None:
    kept: list[bytes] = []

    def keep(_name: str, _model: Any, step: int) -> None:
        kept.append(written_checkpoint(tmp_path, step))

    run_train(stage_run(tmp_path, recipe(epochs=1, checkpoint_every=2), on_checkpoint=keep))
    rng, silent = random.Random(1), 0
    original = torch.load(io.BytesIO(kept[0]))["model"]
    (tmp_path / "step-000000002.pt").write_bytes(kept[0])
    assert newest_checkpoint(Location.of(tmp_path)) is not None
    for _ in range(40):
        data = bytearray(kept[0])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "step-000000002.pt").write_bytes(data)
        try:
            found = newest_checkpoint(Location.of(tmp_path))
        except StoreError:
            continue
        assert found is not None
        silent += any(not torch.equal(value, original[key]) for key, value in found["model"].items())
    assert silent == 0


def test_a_run_depends_on_its_samples_and_not_on_where_they_lie(tmp_path: Path, recipe: Recipe) -> None:
    run = stage_run(tmp_path, recipe())
    moved = replace(run.inputs["ingest"], detail={"shards": {"other": "other.tar"}}, digest="another")
    config = run.config.run("holism")
    assert run_fingerprint(config, run.inputs) == run_fingerprint(config, {**run.inputs, "ingest": moved})
    changed = replace(run.inputs["curate"], digest="another")
    assert run_fingerprint(config, run.inputs) != run_fingerprint(config, {**run.inputs, "curate": changed})


def test_weights_have_open_clips_names(tmp_path: Path, recipe: Recipe) -> None:
    """So that a model of one branch goes back into open_clip by reshaping its class token."""
    outcome = run_train(stage_run(tmp_path, recipe(epochs=1, runs={"one": {"branches": 1, "losses": {"o2m": 1}}})))
    folder = Path(outcome.store) / outcome.detail["runs"]["one"]["folder"]
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state["visual.class_embedding"] = state["visual.class_embedding"][0]
    architecture = build(TrainConfig, recipe()).model
    assert isinstance(architecture, dict)
    open_clip.CLIP(**architecture).load_state_dict(state)


def test_the_stage_declares_what_it_reads() -> None:
    assert (STAGE.name, STAGE.upstream, STAGE.config) == ("train", ("ingest", "curate"), TrainConfig)
    assert STAGE.located_by == ("ingest",)
