"""Ranks on Ray Train: nodes come and go, the samples and losses are those of an undisturbed run; ends in one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.config import ClusterConfig
from pipeline.errors import ConfigError, ScheduleError
from pipeline.messages import heard_by
from pipeline.stage import Outcome
from tests.processes import family
from tests.training import ray_samples
from tests.training.ray_samples import Notes
from tests.training.test_launch import metrics
from tests.training.test_stage import stage_run
from training import trainer
from training.stage import run_train

Recipe = Callable[..., dict[str, Any]]
CLUSTER = ClusterConfig(schedule_seconds=5)
TRAINER = {"trainer": 1}  # nodes of ours alone have it
STEPS = 150

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


def started(folder: Path, recipe: dict[str, Any], **services: Any) -> Outcome:
    return run_train(replace(stage_run(folder, recipe, **services), cluster=CLUSTER))


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

    def steps(self, ranks: int, more: int) -> None:
        """Waits until a new group of so many ranks has made so many steps."""
        before = {line["group"] for line in self.notes.lines()}

        def made() -> bool:
            assert self.is_alive(), (self.error, self.said)
            lines = [line for line in self.notes.lines() if line["group"] not in before]
            return sum(line["ranks"] == ranks and line["rank"] == 0 for line in lines) >= more

        until(made)


def until(so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


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
    settings = recipe(workers=1, epochs=STEPS // 3, lr=1e-4, log_every=1, checkpoint_every=5)
    first, second = (cluster.add_node(num_cpus=1, resources=TRAINER) for _ in range(2))
    training = Training(tmp_path / "ray", on_ray(settings))
    (training.notes.folder / "slow").touch()
    training.start()
    training.steps(2, 8)
    os.kill(ranks()[0], signal.SIGKILL)
    training.steps(2, 8)
    cluster.remove_node(second)
    training.steps(1, 8)
    cluster.add_node(num_cpus=1, resources=TRAINER)
    training.steps(2, 8)
    (training.notes.folder / "slow").unlink()
    training.join(120)
    assert training.error is None
    assert training.outcome is not None
    print("\n".join(training.said))

    alone = Notes(tmp_path / "alone" / "notes")
    monkeypatch.setattr(trainer, "_step", trainer._step)  # put back at the end
    alone.take()
    undisturbed = run_train(stage_run(tmp_path / "alone", settings, on_checkpoint=alone))
    expected, found = alone.steps(), training.notes.steps()
    assert sorted(found) == sorted(expected) == list(range(STEPS))
    for step, ((_, samples),) in expected.items():
        assert len({image for image, _, _ in samples}) == 6
        assert all(others == samples for _, others in found[step]), step
    assert {count for times in found.values() for count, _ in times} == {1, 2}
    assert any(len(times) > 1 for times in found.values())  # steps that were lost are made again
    worst = 0.0
    for one, other in zip(metrics(training.outcome), metrics(undisturbed), strict=True):
        worst = max(worst, abs(one["loss"] - other["loss"]) / abs(other["loss"]))
        assert one == pytest.approx(other, rel=1e-2, abs=1e-3)
    print("WORST", worst)
