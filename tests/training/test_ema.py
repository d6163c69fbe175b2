"""The averaged weights: what they are, that a stop leaves no trace in them, and where they are kept."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import training
from evaluation.stage import load_encoder
from pipeline.config import build, semantic
from pipeline.manifest import Manifest
from pipeline.stops import StoppedError, stoppable
from tests.training.test_evaluations import Scripted
from tests.training.test_saving import stopped_at
from tests.training.test_stage import stage_run
from tests.training.test_trainer import run
from training import trainer
from training.checkpoint import new_model
from training.config import RunConfig
from training.ema import Ema
from training.optim import freeze
from training.stage import run_train

Recipe = Callable[..., dict[str, Any]]
Weights = dict[str, Tensor]


def followed(folder: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[list[Weights], Weights]:
    """The weights after each step of a run, and its average in the end."""
    after: list[Weights] = []
    step = trainer._step

    def watched(state: Any, batch: Any) -> Any:
        made = step(state, batch)
        after.append(copy.deepcopy(state.model.state_dict()))
        return made

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_step", watched)
        trained = run(folder, settings)
    assert trained.ema is not None
    return after, trained.ema.state_dict()


def test_it_is_the_average_with_a_warm_up(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written as a weighted sum over all steps, not as a recursion; the decay is reached after three of nine."""
    decay = 0.3
    settings = recipe(ema=decay)
    after, found = followed(tmp_path, settings, monkeypatch)
    torch.manual_seed(0)
    every = [new_model(build(RunConfig, settings)).state_dict(), *after]
    decays = [1.0, *(min(decay, (1 + step) / (10 + step)) for step in range(len(after)))]
    shares = [(1 - decays[n] if n else 1.0) * math.prod(decays[n + 1 :]) for n in range(len(every))]
    assert sum(shares) == pytest.approx(1.0)
    for name, mean in found.items():
        wanted = sum(share * weights[name].double() for share, weights in zip(shares, every, strict=True))
        torch.testing.assert_close(mean.double(), wanted, rtol=1e-5, atol=1e-6, msg=name)
    assert any(not torch.equal(mean, after[-1][name]) for name, mean in found.items())


def test_a_stop_leaves_no_trace(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe(ema=0.9)
    undisturbed = run(tmp_path / "undisturbed", settings)
    with monkeypatch.context() as patched, stoppable():
        stopped_at(4, patched)
        with pytest.raises(StoppedError):
            run(tmp_path, settings)
    again = run(tmp_path, settings)
    assert undisturbed.ema is not None
    assert again.ema is not None
    for name, mean in undisturbed.ema.state_dict().items():
        assert torch.equal(mean, again.ema.state_dict()[name]), name


def test_it_changes_nothing_of_what_is_trained(tmp_path: Path, recipe: Recipe) -> None:
    without, beside = run(tmp_path / "without", recipe(epochs=1)), run(tmp_path, recipe(epochs=1, ema=0.9))
    assert without.ema is None
    for name, weight in without.model.state_dict().items():
        assert torch.equal(weight, beside.model.state_dict()[name]), name
    assert "ema" not in semantic(build(RunConfig, recipe()))  # runs from before are used on


def test_frozen_weights_are_shared_and_buffers_copied(recipe: Recipe) -> None:
    config = build(RunConfig, recipe(freeze=["image"], warm_start="a.pt", branches=1, losses={"o2m": 1.0}))
    model = new_model(config)
    freeze(model, config)
    model.register_buffer("seen", torch.tensor(3))
    ema = Ema(model, 0.5)
    of_mean, of_model = dict(ema.model.named_parameters()), dict(model.named_parameters())
    assert {name for name, mean in of_mean.items() if mean is of_model[name]} == {
        name for name in of_model if name.startswith("visual.")
    }
    assert not any(mean.requires_grad for mean in of_mean.values())
    model.seen.add_(4)
    with torch.no_grad():
        model.text_projection.fill_(2.0)
        ema.model.text_projection.fill_(1.0)  # type: ignore[union-attr]
    ema.update(step=10**6)
    assert int(ema.model.seen) == 7  # type: ignore[arg-type]
    assert torch.equal(ema.model.text_projection, torch.full_like(model.text_projection, 1.5))  # type: ignore[arg-type]
    assert all(torch.equal(mask, kept) for mask, kept in zip(model.buffers(), ema.model.buffers(), strict=True))


def test_it_is_a_model_of_its_own_beside_the_last(tmp_path: Path, recipe: Recipe) -> None:
    """Measured on the way beside the raw weights, and chosen as the best if its figure decides."""
    settings = recipe(ema=0.5, evaluation={"every": 4}, best={"figure": "squares/ema_accuracy"})
    # Raw and averaged weights in turn: tried out, then after 4, 8 and 9 steps.
    evaluator = Scripted(0.0, 0.0, 0.9, 0.1, 0.2, 0.6, 0.3, 0.4)
    made = stage_run(tmp_path, settings, evaluator=evaluator)
    outcome = run_train(made)
    kept = outcome.detail["runs"]["holism"]
    assert kept["ema"] == {"folder": kept["folder"].replace("/model", "/ema"), "decay": 0.5}
    assert (kept["best"]["step"], kept["best"]["value"]) == (8, 0.6)
    manifest = Manifest("train", "f", 1, {}, {}, outcome.store, tuple(outcome.parts), detail=outcome.detail)
    for weights, measured in (("last", 6), ("ema", 7), ("best", 5)):
        encoder = load_encoder(manifest, "holism", kept, weights)
        state = encoder.model.state_dict()
        assert all(torch.equal(value, evaluator.weights[measured][name]) for name, value in state.items()), weights
    assert run_train(stage_run(tmp_path, settings)).parts == outcome.parts  # nothing is trained twice
    averaged = Path(outcome.store, kept["ema"]["folder"], "model.safetensors")
    whole = averaged.read_bytes()
    averaged.write_bytes(whole[:-1])
    again = run_train(stage_run(tmp_path, settings, evaluator=Scripted(*[0.0] * 8)))
    assert averaged.read_bytes() == whole
    assert again.detail["runs"]["holism"]["ema"] == kept["ema"]
    assert training.load(averaged.parent)[0].slots == ("alt_text", "detail", "style")
