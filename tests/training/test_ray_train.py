"""Ranks on Ray Train: nodes come and go, samples and losses are an undisturbed run's; errors are one sentence."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.config import ClusterConfig
from pipeline.errors import ConfigError, ScheduleError
from pipeline.messages import heard_by
from pipeline.stage import Outcome
from pipeline.stops import StoppedError, stoppable
from tests.processes import family
from tests.training import ray_samples
from tests.training.ray_samples import HELD_AFTER, Notes
from tests.training.test_launch import log_of, metrics, once_trained, until
from tests.training.test_stage import stage_run
from training import trainer
from training.stage import run_train

Recipe = Callable[..., dict[str, Any]]
TRAINER = {"trainer": 1}  # nodes of ours alone have it
STEPS = 60
RUNS = {"holism": {}, "baseline": {"slots": ["alt_text"], "losses": {"o2o": 1.0}, "epochs": 1}}

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def cluster(ray_instance: Any) -> Iterator[Any]:
    """The suite's cluster, in which ranks can be only on nodes that a test adds; they go at its end."""
    from ray import cloudpickle

    before = set(ray_instance.list_all_nodes())
    cloudpickle.register_pickle_by_value(ray_samples)  # workers cannot import tests
    try:
        yield ray_instance
    finally:
        cloudpickle.unregister_pickle_by_value(ray_samples)
        for node in set(ray_instance.list_all_nodes()) - before:
            ray_instance.remove_node(node)


def on_ray(recipe: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**recipe, "launch": {"ray": {"workers": [1, 2], "resources": TRAINER, "resize_seconds": 2, **changes}}}


def started(folder: Path, recipe: dict[str, Any], seconds: float = 5, **services: Any) -> Outcome:
    """The outcome of the stage, which waits so long for room."""
    run = stage_run(folder, recipe, **services)
    return run_train(replace(run, cluster=ClusterConfig(schedule_seconds=seconds)))


class Training(threading.Thread):
    """The stage in a thread, so that nodes can be added meanwhile; Ray does so in the main thread alone."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.folder, self.recipe, self.notes = folder, recipe, Notes(folder / "notes")
        self.outcome: Outcome | None = None
        self.error: Exception | None = None
        self.said: list[str] = []

    def run(self) -> None:
        try:
            with heard_by(lambda text, _: self.said.append(text), 1.0):
                self.outcome = started(self.folder, self.recipe, on_checkpoint=self.notes)
        except Exception as error:
            self.error = error

    def wait_for_group(self, ranks: int) -> None:
        """Until a new group of so many ranks has made all the steps that it is held after."""
        before = {line["group"] for line in self.notes.lines()}

        def made() -> bool:
            assert self.is_alive(), (self.error, self.said)
            lines = [line for line in self.notes.lines() if line["group"] not in before]
            return sum(line["ranks"] == ranks and line["rank"] == 0 for line in lines) > HELD_AFTER

        until(made)


def ranks() -> list[int]:
    """Processes of ranks that this one started."""
    found = []
    for pid in family(os.getpid()):
        try:
            if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_a_worker_dies_a_node_goes_and_a_node_comes(
    tmp_path: Path, recipe: Recipe, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(epochs=STEPS // 3, lr=1e-4, log_every=1, checkpoint_every=5, runs=RUNS)
    _, second = (cluster.add_node(num_cpus=1, resources=TRAINER) for _ in range(2))
    training = Training(tmp_path / "ray", on_ray(settings))
    (training.notes.folder / "hold").touch()
    training.start()
    training.wait_for_group(2)
    os.kill(ranks()[0], signal.SIGKILL)
    training.wait_for_group(2)
    cluster.remove_node(second)
    training.wait_for_group(1)
    cluster.add_node(num_cpus=1, resources=TRAINER)
    training.wait_for_group(2)
    (training.notes.folder / "hold").unlink()
    training.join(120)
    assert training.error is None
    assert training.outcome is not None
    assert set(training.outcome.detail["runs"]) == set(RUNS)
    said = "\n".join(training.said)
    assert re.search(r"rank \d was lost: its process was ended, .*; the workers start again from the newest", said)
    assert re.search(r"rank \d was lost: its node has gone; the workers start again from the newest", said)
    assert said.count("train: starts on 2 Ray workers") == 3
    assert said.count("train: starts on 1 Ray worker\n") == 1
    assert said.count("train holism: goes on from step") == 3
    assert f"train holism {STEPS * 6}/{STEPS * 6} images (100 %)" in said

    alone = Notes(tmp_path / "alone" / "notes")
    monkeypatch.setattr(trainer, "_step", trainer._step)  # put back at the end
    alone.take()
    undisturbed = run_train(stage_run(tmp_path / "alone", settings, on_checkpoint=alone))
    expected, found = alone.steps("holism"), training.notes.steps("holism")
    assert sorted(found) == sorted(expected) == list(range(STEPS))
    for step, ((_, samples),) in expected.items():
        assert len({image for image, _, _ in samples}) == settings["global_batch"]
        assert all(others == samples for _, others in found[step]), step
    assert {count for times in found.values() for count, _ in times} == {1, 2}
    assert any(len(times) > 1 for times in found.values())  # steps that were lost are made again
    for one, other in zip(metrics(training.outcome), metrics(undisturbed), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_what_ends_the_ranks_is_said_in_one_sentence(tmp_path: Path, recipe: Recipe, cluster: Any) -> None:
    with pytest.raises(
        ScheduleError, match=r"1 train workers with 1 CPU and 1 trainer each found no room .* has 2 CPU, 0 trainer"
    ):
        started(tmp_path, on_ray(recipe()), seconds=1)
    cluster.add_node(num_cpus=1, resources=TRAINER)
    with pytest.raises(ConfigError, match="but only 18 images have captions"):
        started(tmp_path, on_ray(recipe(global_batch=20)))


def test_a_stop_reaches_the_ranks_and_leaves_a_checkpoint(
    tmp_path: Path, recipe: Recipe, cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        cluster.add_node(num_cpus=1, resources=TRAINER)
    settings = on_ray(recipe(epochs=100_000, workers=1, log_every=1, slots=["alt_text", "detail"]), workers=2)
    with (
        stoppable() as stopped,
        once_trained(tmp_path, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        pytest.raises(StoppedError),
    ):
        started(tmp_path, settings)
    assert stopped.status == 128 + signal.SIGTERM
    said = capfd.readouterr().err
    log = log_of(tmp_path)
    (checkpoint,) = log.parent.glob("checkpoints/*")
    step = int(checkpoint.stem.removeprefix("step-"))
    assert f"train holism: stopped by SIGTERM; a checkpoint of step {step} is written" in said
    assert len(log.read_bytes().splitlines()) == step
    assert "Traceback" not in said
    assert "train: starts on 2 Ray workers" in said
    until(lambda: not ranks())
