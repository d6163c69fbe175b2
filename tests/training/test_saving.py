"""Checkpoints: written beside the loop, the newest whole one counts, and a stop by hand leaves one."""

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import StoreError
from pipeline.stops import StoppedError, held_back, stoppable
from pipeline.storage import Location
from tests.training.test_trainer import figures, run
from training import trainer
from training.saving import CheckpointWriter, newest_checkpoint
from training.trainer import CHECKPOINTS, METRICS

Recipe = Callable[..., dict[str, Any]]


def state(step: int) -> dict[str, Any]:
    return {
        "description": {"format": 2},
        "origin": {},
        "step": step,
        "model": {"weight": torch.full((3,), float(step))},
    }


def written(folder: Path, *steps: int, keep: int = 9) -> list[Path]:
    with CheckpointWriter(Location.of(folder), keep) as writer:
        for step in steps:
            writer.write(state(step), step)
    return sorted(folder.iterdir())


def test_a_checkpoint_is_of_the_moment_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on, and changes its weights, while the file is written."""
    go_on = threading.Event()
    save = torch.save

    def slow(content: Any, file: Any) -> None:
        go_on.wait(30)
        save(content, file)

    monkeypatch.setattr(torch, "save", slow)
    weight = torch.zeros(3)
    with CheckpointWriter(Location.of(tmp_path), keep=1) as writer:
        writer.write({**state(4), "model": {"weight": weight}}, 4)
        weight.fill_(9.0)
        assert not list(tmp_path.iterdir())
        go_on.set()
    found = newest_checkpoint(Location.of(tmp_path))
    assert found is not None
    assert found["model"]["weight"].tolist() == [0.0] * 3


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    assert [file.name for file in written(tmp_path, 2, 4, 6, keep=2)] == ["step-000000004.pt", "step-000000006.pt"]


def test_of_damaged_checkpoints_the_one_before_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, newest = written(tmp_path, 2, 4, 6)
    newest.write_bytes(newest.read_bytes()[:-100])
    found = newest_checkpoint(Location.of(tmp_path))
    assert found is not None
    assert found["step"] == 4
    said = capsys.readouterr().err
    assert said.count("warning: the checkpoint") == 1
    assert f"{newest} is damaged" in said
    # It is of steps that are trained again: it must not outlive what is written now.
    assert [file.name for file in written(tmp_path, 5, keep=1)] == ["step-000000005.pt"]


def test_a_full_disk_leaves_the_last_checkpoint_and_names_it(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Location.write

    def full(place: Location, data: bytes) -> None:
        if place.name == "step-000000004.pt":
            raise StoreError(f"no space is left for {place}")
        write(place, data)

    monkeypatch.setattr(Location, "write", full)
    message = r"step-000000004.pt was not written, and the last one is step-000000002.pt: no space is left"
    with pytest.raises(StoreError, match=message):
        run(tmp_path, recipe(checkpoint_every=2, log_every=1))
    monkeypatch.undo()
    assert run(tmp_path, recipe(checkpoint_every=2)).steps == 9


def test_checkpoints_by_the_clock(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    write = CheckpointWriter.write

    def watched(writer: CheckpointWriter, content: Mapping[str, Any], step: int) -> None:
        steps.append(step)
        write(writer, content, step)

    monkeypatch.setattr(CheckpointWriter, "write", watched)
    run(tmp_path, recipe(log_every=2, checkpoint_minutes=1e-9))
    assert steps == [2, 4, 6, 8]  # at every look but the last, which ends the run
    run(tmp_path / "other", recipe(log_every=2, checkpoint_minutes=60))
    assert len(steps) == 4


def stopped_at(step: int, monkeypatch: pytest.MonkeyPatch, number: signal.Signals = signal.SIGTERM) -> None:
    """The signal comes in the middle of a step, once."""
    original, waiting = trainer._step, [number]

    def stopping(state: Any, batch: Any) -> Any:
        if batch.step == step and waiting:
            os.kill(os.getpid(), waiting.pop())
        return original(state, batch)

    monkeypatch.setattr(trainer, "_step", stopping)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_writes_a_checkpoint_and_the_same_command_goes_on(
    tmp_path: Path,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    settings = recipe(workers=1)
    undisturbed = run(tmp_path / "undisturbed", settings)
    stopped_at(4, monkeypatch, number)
    with stoppable() as stop, pytest.raises(StoppedError):
        run(tmp_path, settings)
    assert stop.status == 128 + number
    assert f"train t: stopped by {number.name}; a checkpoint of step 5 is written" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "run" / CHECKPOINTS).iterdir()] == ["step-000000005.pt"]
    assert len((tmp_path / "run" / METRICS).read_bytes().splitlines()) == 5
    again = run(tmp_path, settings)
    assert "train t: goes on from step 5\n" in capsys.readouterr().err
    assert figures(again.metrics) == figures(undisturbed.metrics)
    for name, weight in undisturbed.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_a_stop_in_the_last_step_loses_nothing(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(8, monkeypatch)
    with stoppable(), pytest.raises(StoppedError):
        run(tmp_path, recipe())
    assert len(figures(run(tmp_path, recipe()).metrics)) == 9


def test_a_stop_does_not_wait_for_a_step_that_does_not_end(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As where a store does not answer: what was trained until then is saved."""
    original = trainer._step

    def hanging(state: Any, batch: Any) -> Any:
        if batch.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return original(state, batch)

    monkeypatch.setattr("pipeline.stops.PATIENCE", 0.2)
    monkeypatch.setattr(trainer, "_step", hanging)
    began = time.monotonic()
    with stoppable() as stop, pytest.raises(StoppedError):
        run(tmp_path, recipe())
    assert time.monotonic() - began < 30
    assert stop.status == 143
    assert "a checkpoint of step 3 is written" in capsys.readouterr().err
    monkeypatch.undo()
    assert len(figures(run(tmp_path, recipe()).metrics)) == 9


def test_a_checkpoint_by_other_code_is_used_and_said(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, recipe(checkpoint_every=4))
    now = {"holism": "9.9", "training": "0" * 12, "torch": str(torch.__version__)}
    monkeypatch.setattr("training.origin.code", lambda: now)
    run(tmp_path, recipe(checkpoint_every=4))
    assert "goes on from step 8; the checkpoint was written with holism " in capsys.readouterr().err


def work_through(*signals: signal.Signals) -> list[signal.Signals]:
    """Which of the signals were sent before a stop that is held back came."""
    sent = []
    with stoppable() as stop:
        try:
            with held_back():
                for number in signals:
                    sent.append(number)
                    os.kill(os.getpid(), number)
        except StoppedError:
            assert stop.signal == signals[0]
            return sent
    raise AssertionError("not stopped")


def test_a_signal_that_is_ignored_is_not_held_back() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable() as outer, held_back() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert (outer.signal, stop.signal) == (None, None)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stop_that_is_held_back_comes_at_the_end_or_with_a_second_ctrl_c() -> None:
    assert work_through(signal.SIGTERM, signal.SIGTERM) == [signal.SIGTERM, signal.SIGTERM]
    assert work_through(signal.SIGINT, signal.SIGINT, signal.SIGTERM) == [signal.SIGINT, signal.SIGINT]
