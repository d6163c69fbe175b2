"""What does without a Ray cluster: what its failures are called, and how a stop and a line reach a rank's thread."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import stops
from pipeline.errors import ConfigError, InputError, ScheduleError
from tests.training.test_stage import stage_run
from training import on_ray
from training.desk import Desk, failure_of
from training.stage import run_train

Recipe = Callable[..., dict[str, Any]]


def dead(context: str) -> Exception:
    """An actor's death, in Ray's words."""
    exceptions = pytest.importorskip("ray.exceptions")
    error = exceptions.ActorDiedError()
    error.error_msg = f"The actor died unexpectedly before finishing this task.\n\tip: 10.0.0.2\n{context}"
    return error  # type: ignore[no-any-return]


KILLED = """its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits
with a connection error code 2. End of file. Some common causes include: (1) the process was killed"""


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("The actor died because its node has died. Node Id: c0a0", "its node has gone"),
        (KILLED, "its process was ended, most often for want of memory"),
        ("Worker exit detail: Worker exits with an exit code 3. The", r"its process ended \(Worker .* exit code 3\)"),
    ],
)
def test_the_rank_that_died_is_named_and_not_those_that_followed(context: str, expected: str) -> None:
    train = pytest.importorskip("ray.train")
    followed = RuntimeError("Connection closed by peer")
    error = train.WorkerGroupError("", {0: followed, 1: dead(context)})
    assert str(failure_of(error)).startswith("rank 1 was lost: ")
    assert re.search(expected, str(failure_of(error)))


def test_an_error_of_the_users_is_what_ended_a_group() -> None:
    train = pytest.importorskip("ray.train")
    found = InputError("the shard is gone")
    assert failure_of(train.WorkerGroupError("", {0: RuntimeError("x"), 1: dead(""), 2: found})) is found


def test_want_of_room_is_no_failure() -> None:
    train = pytest.importorskip("ray.train")
    from ray.train.v2._internal.exceptions import WorkerGroupStartupFailedError, WorkerGroupStartupTimeoutError

    assert failure_of(train.ControllerError(WorkerGroupStartupTimeoutError(2))) is None
    told = failure_of(train.ControllerError(WorkerGroupStartupFailedError("no torch there")))
    assert told == "Ray Train could not start them (no torch there)"


def test_without_ray_it_says_what_to_install(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="needs Ray, which is not installed"):
        run_train(stage_run(tmp_path, recipe(launch={"ray": {"workers": [1, 2]}})))


def test_a_stop_reaches_a_thread_and_leaves_a_checkpoint(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stops, "_asked", type(stops._asked)())
    settings, steps, found = (
        recipe(epochs=100_000, log_every=1, checkpoint_every=4),
        list[int](),
        list[BaseException](),
    )

    def stop_soon(_name: str, _model: Any, step: int) -> None:
        steps.append(step)
        if step == 8:
            stops.ask_threads(signal.SIGINT)

    def train() -> None:
        try:
            run_train(stage_run(tmp_path, settings, on_checkpoint=stop_soon))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join(120)
    assert [type(error) for error in found] == [stops.StoppedError]
    (checkpoint, *_) = sorted((tmp_path / "ws" / "train").glob("holism-*/checkpoints/*"), reverse=True)
    assert checkpoint.name == "step-000000009.pt"
    assert "stopped by SIGINT; a checkpoint of step 9 is written" in capsys.readouterr().err


def test_failures_without_a_new_checkpoint_between_them_are_counted(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pytest.importorskip("ray.train")
    checkpoints = ["step-1.pt", "step-2.pt"]  # written by the first two groups
    groups: list[int] = []

    def group(desk: Desk, _worker: object) -> None:
        if len(groups) < len(checkpoints):
            (desk._run.workspace.folder("train") / checkpoints[len(groups)]).write(b"")
        groups.append(1)
        raise train.WorkerGroupError("", {0: dead(KILLED)})

    monkeypatch.setattr(Desk, "_worker", lambda _: {"CPU": 1})
    monkeypatch.setattr(Desk, "_group", group)
    monkeypatch.setattr("training.desk.require_room", lambda *_: None)
    monkeypatch.setattr("training.desk.has_room", lambda *_: True)
    run = stage_run(tmp_path, recipe(launch={"ray": {"workers": [1, 2], "max_failures": 2}}))
    desk = Desk(lambda _: pytest.fail("no rank is started"), run, run.config.launch.ray, 1.0)
    error = desk.train()
    assert isinstance(error, ScheduleError)
    assert re.search(r"failed 3 times without a new checkpoint .* rank 0 was lost: its process was ended", str(error))
    assert len(groups) == 4  # the second group's checkpoint is the newest
    assert sum("start again from the newest checkpoint" in text for text, _ in desk.news()) == 3
