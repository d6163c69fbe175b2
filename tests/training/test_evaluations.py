"""Evaluation on the way: measured, written down, the best kept, and the trained model the same as without."""

import copy
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import training
from evaluation.config import EvaluateConfig
from evaluation.in_training import InTraining
from pipeline.config import build
from pipeline.errors import ConfigError, InputError
from pipeline.ingest import shard_uris
from pipeline.shards import ShardReader
from pipeline.stops import StoppedError, stoppable
from pipeline.storage import Location
from tests.evaluation.conftest import write_squares
from tests.training.conftest import make_inputs
from tests.training.test_launch import started
from tests.training.test_saving import stopped_at
from tests.training.test_stage import stage_run
from tests.training.test_trainer import ALONE, figures
from training.bundles import read_bundles
from training.config import RunConfig
from training.stage import run_train
from training.trainer import Trained, train

Recipe = Callable[..., dict[str, Any]]
BEST = {"figure": "squares/accuracy"}


class Scripted:
    """Gives the figures it is told, in turn, and keeps the weights of each time. The first time is the try-out."""

    def __init__(self, *values: float | Exception) -> None:
        self.values, self.weights = list(values), list[Mapping[str, Any]]()

    def __call__(self, model: Any, *_: Any) -> dict[str, float]:
        assert not model.training
        torch.rand(3)
        self.weights.append(copy.deepcopy(model.state_dict()))
        value = self.values.pop(0)
        if isinstance(value, Exception):
            raise value
        return {"squares/accuracy": value}


def run(folder: Path, recipe: dict[str, Any], evaluator: Any = None) -> Trained:
    config = build(RunConfig, recipe)
    inputs = make_inputs(folder / "inputs", 20)
    bundles, reader = read_bundles(inputs["curate"], config.slots), ShardReader(shard_uris(inputs["ingest"]))
    return train("t", config, bundles, reader, Location.of(folder / "run"), ALONE, evaluator=evaluator)


def on_squares(folder: Path) -> InTraining:
    return InTraining(EvaluateConfig(benchmarks=(str(write_squares(folder / "squares")),), workers=1))


def without_figures(trained: Trained) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in figures(trained.metrics)]


def test_evaluation_changes_nothing_of_the_trained_model(tmp_path: Path, recipe: Recipe) -> None:
    alone = run(tmp_path / "alone", recipe())
    random_alone = torch.get_rng_state()
    settings = recipe(evaluation={"every": 2}, best={"figure": "squares/macro_accuracy"})
    watched = run(tmp_path, settings, on_squares(tmp_path))
    assert torch.equal(torch.get_rng_state(), random_alone)
    for name, weight in alone.model.state_dict().items():
        assert torch.equal(weight, watched.model.state_dict()[name]), name
    assert without_figures(watched) == figures(alone.metrics)
    drawn = run(tmp_path / "drawn", recipe(evaluation={"every": 4}), Scripted(*[0.0] * 4))
    assert torch.equal(torch.get_rng_state(), random_alone)
    assert without_figures(drawn) == figures(alone.metrics)


def test_figures_stand_in_the_row_of_the_step_before_them(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluator = on_squares(tmp_path)
    trained = run(tmp_path, recipe(evaluation={"every": 4, "images": None}), evaluator)
    measured = {row["step"]: row for row in figures(trained.metrics) if any(key.startswith("eval/") for key in row)}
    assert list(measured) == [3, 7, 8]  # after 4 and 8 steps, and after the last
    preprocess, tokenizer = _as_loaded(tmp_path, trained)
    wanted = build(RunConfig, recipe(evaluation={"every": 1, "images": None})).evaluation
    now = evaluator(trained.model, preprocess, tokenizer, wanted)
    assert {
        "squares/macro_accuracy",
        "squares/text_to_image_recall@1",
        "squares/image_to_text_recall@5/detail",
    } <= set(now)
    assert {f"eval/{name}": pytest.approx(value, abs=1e-5) for name, value in now.items()}.items() <= measured[
        8
    ].items()
    said = capsys.readouterr().err
    assert said.count("train t: before the first step: squares/") == 1
    assert f"train t: step 9: squares/macro_accuracy {100 * now['squares/macro_accuracy']:.1f} %" in said


def _as_loaded(folder: Path, trained: Trained) -> tuple[Any, Any]:
    from training.checkpoint import model_files

    for name, data in model_files(trained.model, build(RunConfig, {"model": trained.model.architecture}), 9).items():
        (folder / name).write_bytes(data)
    return training.load(folder)[1:]


def test_an_evaluation_that_cannot_be_had_costs_itself_alone(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = run(tmp_path, recipe(evaluation={"every": 4}), Scripted(0.1, InputError("a picture is lost"), 0.2, 0.3))
    assert [row["step"] for row in figures(trained.metrics) if "eval/squares/accuracy" in row] == [7, 8]
    assert "train t: warning: no evaluation after step 4: a picture is lost" in capsys.readouterr().err


def test_what_does_not_work_is_said_before_the_first_step(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(InputError, match="a picture is lost"):
        run(tmp_path, recipe(evaluation={"every": 4}), Scripted(InputError("a picture is lost")))
    with pytest.raises(ConfigError, match=r"train.best.figure is 'squares/acc', but the evaluation gives squares/acc"):
        run(tmp_path, recipe(evaluation={"every": 4}, best={"figure": "squares/acc"}), Scripted(0.1))
    with pytest.raises(ConfigError, match="nothing that evaluates was handed in"):
        run(tmp_path, recipe(evaluation={"every": 4}))
    with pytest.raises(ConfigError, match=r"best is chosen by evaluations; set evaluation\.every"):
        build(RunConfig, recipe(best=BEST))


def test_a_stop_does_not_wait_for_an_evaluation(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(evaluation={"every": 5})
    undisturbed = run(tmp_path / "undisturbed", recipe())

    def hanging(*_: Any) -> dict[str, float]:
        if hanging.seen:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        hanging.seen = True  # type: ignore[attr-defined]
        return {"squares/accuracy": 0.5}

    hanging.seen = False  # type: ignore[attr-defined]
    monkeypatch.setattr("pipeline.stops.PATIENCE", 0.2)
    began = time.monotonic()
    with stoppable(), pytest.raises(StoppedError):
        run(tmp_path, settings, hanging)
    assert time.monotonic() - began < 45
    assert [file.name for file in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000000005.pt"]
    again = run(tmp_path, settings, Scripted(0.5))
    assert without_figures(again) == figures(undisturbed.metrics)


def test_the_best_model_is_kept_beside_the_last(tmp_path: Path, recipe: Recipe) -> None:
    settings = recipe(evaluation={"every": 2}, best=BEST)
    evaluator = Scripted(0.9, 0.1, 0.6, 0.6, 0.2, 0.3)  # tried out; after 2, 4, 6, 8 and 9 steps
    outcome = run_train(stage_run(tmp_path, settings, evaluator=evaluator))
    best = outcome.detail["runs"]["holism"]["best"]
    assert (best["step"], best["figure"], best["value"]) == (6, "squares/accuracy", 0.6)
    assert outcome.counts["holism"]["best"]["step"] == 6
    _is(outcome.store, best["folder"], evaluator.weights[3])
    _is(outcome.store, outcome.detail["runs"]["holism"]["folder"], evaluator.weights[5])
    assert not list(Path(outcome.store).glob("*/best.pt"))
    assert run_train(stage_run(tmp_path, settings)).parts == outcome.parts  # finished: nothing is measured again
    Path(outcome.store, best["folder"], "model.safetensors").unlink()
    again = run_train(stage_run(tmp_path, settings, evaluator=Scripted(0.9, 0.1, 0.6, 0.6, 0.2, 0.3)))
    assert again.digest == outcome.digest
    lowest = {**settings, "best": {**BEST, "mode": "min"}}
    other = run_train(stage_run(tmp_path / "lowest", lowest, evaluator=Scripted(0.0, 0.1, 0.6, 0.6, 0.2, 0.3)))
    assert other.detail["runs"]["holism"]["best"]["step"] == 2
    assert other.digest != outcome.digest


def _is(store: str, folder: str, weights: Mapping[str, Any]) -> None:
    model, _, _ = training.load(f"{store}/{folder}")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def stopped_after_seven(
    folder: Path, settings: dict[str, Any], values: Sequence[float], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run that was stopped after 7 steps; the file of its best model."""
    with monkeypatch.context() as patched, stoppable():
        stopped_at(6, patched)
        with pytest.raises(StoppedError):
            run_train(stage_run(folder, settings, evaluator=Scripted(*values)))
    (file,) = (folder / "ws" / "train").glob("*/best.pt")
    return file


def test_a_run_that_goes_on_knows_what_was_best(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = recipe(evaluation={"every": 2}, best=BEST)
    stopped_after_seven(tmp_path, settings, (0.9, 0.1, 0.6, 0.2), monkeypatch)
    outcome = run_train(stage_run(tmp_path, settings, evaluator=Scripted(0.5, 0.4)))
    assert outcome.detail["runs"]["holism"]["best"]["step"] == 4

    file = stopped_after_seven(tmp_path / "damaged", settings, (0.9, 0.1, 0.6, 0.2), monkeypatch)
    file.write_bytes(file.read_bytes()[:-100])
    capsys.readouterr()
    outcome = run_train(stage_run(tmp_path / "damaged", settings, evaluator=Scripted(0.5, 0.4)))
    said = capsys.readouterr().err
    assert "warning: the best model so far is lost: the checkpoint" in said
    assert f"{file} is damaged" in said
    assert outcome.detail["runs"]["holism"]["best"]["step"] == 8


def test_a_best_model_that_is_lost_at_the_end_is_warned_of(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(evaluation={"every": 2}, best=BEST)
    file = stopped_after_seven(tmp_path, settings, (0.9, 0.1, 0.6, 0.2), monkeypatch)
    file.write_bytes(b"torn")
    lost = Scripted(InputError("lost"), InputError("lost"))
    outcome = run_train(stage_run(tmp_path, settings, evaluator=lost))
    assert "best" not in outcome.detail["runs"]["holism"]
    assert any("there is no best model" in warning for warning in outcome.warnings)


@pytest.mark.slow
def test_on_ranks_the_first_one_evaluates(tmp_path: Path, recipe: Recipe) -> None:
    settings = recipe(evaluation={"every": 3}, best={"figure": "squares/macro_accuracy"})
    found = started(tmp_path / "ranks", settings, evaluator=on_squares(tmp_path))
    alone = run_train(stage_run(tmp_path / "alone", settings, evaluator=on_squares(tmp_path / "alone")))
    assert [part.name for part in found.parts] == [part.name for part in alone.parts]
    of_ranks, of_one = (figures((Path(o.store) / o.parts[-1].name).read_bytes()) for o in (found, alone))
    assert [row["step"] for row in of_ranks if "eval/squares/accuracy" in row] == [2, 5, 8]
    assert [set(row) for row in of_ranks] == [set(row) for row in of_one]
