"""Ranks that the stage starts itself: the result, the errors and the stops of a single process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, ScheduleError
from pipeline.stage import Outcome
from tests.processes import alive, family
from tests.training.test_stage import stage_run
from tests.training.test_trainer import figures
from training.stage import run_train

Recipe = Callable[..., dict[str, Any]]

PROGRAM = """
import json, sys
from pathlib import Path
from pipeline.stops import end_children, stoppable
from tests.training.test_launch import started
with stoppable() as stop:
    try:
        started(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(stop.status)
"""


def started(folder: Path, recipe: dict[str, Any], **services: Any) -> Outcome:
    return run_train(stage_run(folder, {**recipe, "launch": {"ranks": 2}}, **services))


def metrics(outcome: Outcome) -> list[dict[str, Any]]:
    (file,) = Path(outcome.store).glob("holism-*/metrics.jsonl")
    rows = figures(file.read_bytes())
    for row in rows:
        del row["tokens"]  # ranks pad by themselves
    return rows


def note_step(name: str, _model: Any, step: int) -> None:
    """A service; ranks get it by its name."""
    Path(os.environ["NOTES"]).write_text(f"{name} {step}")


@pytest.mark.slow
def test_ranks_train_what_one_process_trains(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    settings = recipe(workers=1, checkpoint_every=4)
    found = started(tmp_path / "ranks", settings, on_checkpoint=note_step)
    said = capfd.readouterr().err.splitlines()
    alone = run_train(stage_run(tmp_path / "alone", settings))
    assert [part.name for part in found.parts] == [part.name for part in alone.parts]
    for one, other in zip(metrics(found), metrics(alone), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert (tmp_path / "notes").read_text() == "holism 8"
    assert said  # progress, of one rank, and nothing of the agent's
    assert all(line.startswith(("train holism", "train: index")) for line in said)


@pytest.mark.slow
def test_what_goes_wrong_in_ranks_is_said_once(
    tmp_path: Path, recipe: Recipe, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="but only 18 images have captions"):
        started(tmp_path, recipe(global_batch=20))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reaches_the_ranks_and_leaves_a_checkpoint(tmp_path: Path, recipe: Recipe, number: int) -> None:
    settings = recipe(epochs=1000, workers=1, log_every=1)
    process, log = start(tmp_path, settings)
    children = family(process.pid)
    assert len(children) >= 2
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    (checkpoint,) = log.parent.glob("checkpoints/*")
    step = int(checkpoint.stem.removeprefix("step-"))
    assert f"stopped by {signal.Signals(number).name}; a checkpoint of step {step} is written" in said
    assert len(log.read_bytes().splitlines()) <= step  # all of them, if the machine was quick enough
    assert "Traceback" not in said
    until(lambda: not any(alive(child) for child in children))


@pytest.mark.slow
def test_a_rank_that_dies_is_named(tmp_path: Path, recipe: Recipe) -> None:
    process, _ = start(tmp_path, recipe(epochs=1000, log_every=1))
    ranks = [int(pid) for pid in family(process.pid) if b"training.rank" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(ranks[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert ScheduleError.__name__ in said
    assert "of 2 of train was ended by SIGKILL, most often for want of memory" in said


def start(folder: Path, recipe: dict[str, Any]) -> tuple[subprocess.Popen[str], Path]:
    """A process that trains on two ranks, once it has made some steps, and its log."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), json.dumps(recipe)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    logs: list[Path] = []

    def has_trained() -> bool:
        assert process.poll() is None, process.communicate()
        logs[:] = (folder / "ws" / "train").glob("holism-*/metrics.jsonl")
        return bool(logs) and len(logs[0].read_bytes().splitlines()) > 3

    until(has_trained)
    return process, logs[0]


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
