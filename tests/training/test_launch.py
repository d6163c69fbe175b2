"""Ranks that the stage starts itself: the result, the errors and the stops of a single process."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, ScheduleError
from pipeline.stage import Outcome
from pipeline.stops import StoppedError, stoppable
from tests.processes import alive, family
from tests.training.test_stage import stage_run
from tests.training.test_trainer import figures
from training.stage import run_train

Recipe = Callable[..., dict[str, Any]]


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
def test_a_stop_reaches_the_ranks_and_leaves_a_checkpoint(
    tmp_path: Path, recipe: Recipe, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    """The signal comes to this process, as the command line gets it."""
    children: list[int] = []

    def stop() -> None:
        children.extend(ranks())
        os.kill(os.getpid(), number)

    with stoppable() as stopped, once_trained(tmp_path, stop), pytest.raises(StoppedError):
        started(tmp_path, recipe(epochs=1000, workers=1, log_every=1))
    assert stopped.status == 128 + number
    assert len(children) == 2
    log = log_of(tmp_path)
    (checkpoint,) = log.parent.glob("checkpoints/*")
    step = int(checkpoint.stem.removeprefix("step-"))
    said = capfd.readouterr().err
    assert f"stopped by {number.name}; a checkpoint of step {step} is written" in said
    assert len(log.read_bytes().splitlines()) <= step  # all of them, if the machine was quick enough
    assert "Traceback" not in said
    until(lambda: not any(alive(child) for child in children))


@pytest.mark.slow
def test_a_rank_that_dies_is_named(tmp_path: Path, recipe: Recipe) -> None:
    named = "of 2 of train was ended by SIGKILL, most often for want of memory"
    with (
        once_trained(tmp_path, lambda: os.kill(ranks()[-1], signal.SIGKILL)),
        pytest.raises(ScheduleError, match=named),
    ):
        started(tmp_path, recipe(epochs=1000, log_every=1))


def ranks() -> list[int]:
    """The ranks that this process started."""
    pids = family(os.getpid())
    return [pid for pid in pids if b"training.rank" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def log_of(folder: Path) -> Path:
    (log,) = (folder / "ws" / "train").glob("holism-*/metrics.jsonl")
    return log


@contextmanager
def once_trained(folder: Path, act: Callable[[], object]) -> Iterator[None]:
    """Has a thread act when some steps are made, while this one trains. Both have to come to their end."""

    def has_trained() -> bool:
        return any(
            len(log.read_bytes().splitlines()) > 3 for log in (folder / "ws" / "train").glob("holism-*/metrics.jsonl")
        )

    def wait_and_act() -> None:
        until(lambda: ended.is_set() or has_trained())
        if not ended.is_set():
            act()

    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        acted = pool.submit(wait_and_act)
        try:
            yield
        finally:
            ended.set()
    acted.result()


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
