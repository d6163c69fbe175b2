"""What is trained and how fast: frozen towers, learning rates by depth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import build
from pipeline.errors import ConfigError
from tests.training.test_trainer import run
from training.checkpoint import model_files, new_model
from training.config import RunConfig
from training.model import HolisticCLIP
from training.optim import make_optimizer, set_learning_rate

Recipe = Callable[..., dict[str, Any]]


@pytest.fixture
def weights(tmp_path: Path, recipe: Recipe) -> str:
    """A model of one branch to start from."""
    config = build(RunConfig, recipe(branches=1, losses={"o2m": 1.0}))
    torch.manual_seed(9)
    folder = tmp_path / "weights"
    folder.mkdir()
    for name, data in model_files(new_model(config), config, 0).items():
        (folder / name).write_bytes(data)
    return str(folder)


def moved(tmp_path: Path, settings: dict[str, Any]) -> set[str]:
    """Names of the parameters that training changed."""
    start = run(tmp_path / "start", {**settings, "warmup_steps": 10**9}).model.state_dict()
    end = run(tmp_path / "end", settings).model.state_dict()
    return {name for name, value in end.items() if not torch.allclose(value, start[name], atol=1e-5)}


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_locked_image_tower_stays_as_it_came(
    tmp_path: Path, recipe: Recipe, weights: str, micro_batch: int | None
) -> None:
    one = {"branches": 1, "losses": {"o2m": 1.0}, "epochs": 1, "warm_start": weights, "micro_batch": micro_batch}
    changed = moved(tmp_path, recipe(freeze=["image"], **one))
    assert not [name for name in changed if name.startswith("visual.")]
    assert {"text_projection", "transformer.resblocks.0.mlp.c_fc.weight", "logit_scale"} <= changed


def test_branches_learn_on_a_locked_tower(tmp_path: Path, recipe: Recipe, weights: str) -> None:
    changed = moved(tmp_path, recipe(freeze=["image", "text"], epochs=1, warm_start=weights))
    layer = "visual.transformer.resblocks.1.mlp.c_proj"
    own = {f"{layer}.weight", "visual.proj"}
    assert own <= changed <= {*own, f"{layer}.bias", "logit_scale"}


def test_frozen_towers_need_weights_and_something_to_learn(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="keeps untrained weights as they are; set warm_start"):
        build(RunConfig, recipe(freeze=["image"]))
    one = recipe(freeze=["image", "text"], branches=1, losses={"o2m": 1.0}, warm_start="weights.pt")
    with pytest.raises(ConfigError, match="nothing to learn"):
        build(RunConfig, one)


def test_earlier_layers_learn_slower(tiny_architecture: dict[str, Any]) -> None:
    model = HolisticCLIP(tiny_architecture, ("a", "b"))
    optimizer = make_optimizer(model, build(RunConfig, {"layer_decay": 0.5}))
    set_learning_rate(optimizer, 1.0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: rate[id(p)] for name, p in model.named_parameters()}
    wanted = {
        "visual.proj": 1.0,
        "visual.class_embedding": 1.0,  # the branches' own, and new
        "visual.transformer.resblocks.1.mlp.c_fc.weight": 0.5,
        "visual.transformer.resblocks.0.ln_1.bias": 0.25,
        "visual.conv1.weight": 0.125,
        "text_projection": 1.0,
        "ln_final.weight": 1.0,
        "transformer.resblocks.1.attn.in_proj_weight": 0.5,
        "transformer.resblocks.0.mlp.c_fc.weight": 0.25,
        "token_embedding.weight": 0.125,
        "positional_embedding": 0.125,
        "logit_scale": 1.0,
    }
    assert {name: found[name] for name in wanted} == wanted
