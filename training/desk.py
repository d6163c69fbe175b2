"""The desk: an actor that has Ray Train start the ranks, again where some are lost, and that passes on what is said.

Ray Train's controller starts as many workers as there is room for, and anew when nodes come or are about to go. When
workers fail it is asked for a new group here, and not by its own `max_failures`: that counts over a whole run, which
may take weeks on nodes that come and go, while here only failures without a new checkpoint between them count. What is
true of a run is in the workspace (checkpoints, metrics, commits), so a group needs nothing of the one before it, and
Ray Train keeps nothing.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from queue import Empty, SimpleQueue
from signal import Signals
from typing import Any

from pipeline.cluster.connection import reason
from pipeline.cluster.room import has_room, require_room
from pipeline.errors import HolismError, ScheduleError
from pipeline.messages import heard_by, say
from pipeline.stage import Outcome, StageRun
from training.launch_settings import RayLaunch
from training.ray_rank import Work, train_rank

AGAIN = "the same command goes on from the last checkpoint"
VARIABLES = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a configuration are relative to where it is run
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "3",  # of lost ranks the others cannot take leave
}


class Desk:
    """Lives for one run of the stage. `train` takes as long as that; the other calls come in beside it."""

    def __init__(self, work: Work, run: StageRun, launch: RayLaunch, progress_seconds: float) -> None:
        """`work` is what each rank does with `run`."""
        self._work = work
        self._run, self._launch, self._seconds = run, launch, run.cluster.schedule_seconds
        self._news: SimpleQueue[tuple[str, bool]] = SimpleQueue()
        self._progress_seconds = progress_seconds
        self._stop: Signals | None = None
        self._is_training = False

    def train(self) -> Outcome | HolismError | None:
        """The outcome, None after a stop, or the error that ended the ranks."""
        with heard_by(lambda text, warning: self._news.put((text, warning))):
            try:
                return self._train()
            except HolismError as error:
                return error

    def report(self, lines: list[tuple[str, bool]]) -> Signals | None:
        """Called by the first rank every now and then, with what it says; returns whether to stop."""
        self._is_training = True
        for line in lines:
            self._news.put(line)
        return self._stop

    def news(self) -> list[tuple[str, bool]]:
        """What was said since the last call."""
        lines = []
        while True:
            try:
                lines.append(self._news.get_nowait())
            except Empty:
                return lines

    def stop(self, number: Signals) -> bool:
        """Has the ranks leave at their next step. Returns whether there are any."""
        self._stop = number
        return self._is_training

    def _train(self) -> Outcome | None:
        worker, least = self._worker(), self._launch.workers[0]
        advice = "lower train.launch.ray.workers, or add nodes"
        require_room([worker] * least, "train workers", advice, self._seconds)
        failures, last = 0, self._checkpoints()
        while self._stop is None:
            try:
                return self._group(worker)
            except Exception as error:
                failure = failure_of(error)
            finally:
                self._is_training = False
            if isinstance(failure, HolismError):
                raise failure
            if failure is not None and self._stop is None:
                newest = self._checkpoints()
                failures, last = (failures + 1 if newest == last else 1), newest
                if failures > self._launch.max_failures:
                    raise ScheduleError(
                        f"the workers of train failed {failures} times without a new checkpoint in between, the last "
                        f"time as {failure}; put that right, {AGAIN}"
                    )
                say(f"train: warning: {failure}; the workers start again from the newest checkpoint", warning=True)
            self._wait_for_room([worker] * least)
        return None

    def _group(self, worker: Mapping[str, float]) -> Outcome | None:
        """One group of workers after the other, for as long as none fails."""
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        desk, work, run, seconds = (
            ray.get_runtime_context().current_actor,
            self._work,
            self._run,
            self._progress_seconds,
        )
        if not worker.get("GPU"):  # whatever the nodes have, these workers were given none
            run = _on_cpu(run)
        scaling = ScalingConfig(
            num_workers=self._launch.workers,
            use_gpu=bool(worker.get("GPU")),
            resources_per_worker=dict(worker),
            elastic_resize_monitor_interval_s=self._launch.resize_seconds,
        )
        with tempfile.TemporaryDirectory(prefix="holism-ray-train-") as folder:
            settings = RunConfig(
                name="holism",
                storage_path=folder,  # Ray Train wants one; nothing comes to lie there
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            )
            trainer: Any = TorchTrainer(
                lambda: train_rank(work, run, desk, seconds), scaling_config=scaling, run_config=settings
            )
            outcome: Outcome | None = trainer.fit().return_value
            return outcome

    def _worker(self) -> dict[str, float]:
        """What one worker takes."""
        import ray

        gpus = self._launch.gpus
        if gpus is None:
            device, found = self._run.config.device, ray.cluster_resources().get("GPU", 0)
            gpus = int(device == "cuda" or (device == "auto" and found >= 1))
        return {"CPU": self._launch.cpus} | ({"GPU": gpus} if gpus else {}) | self._launch.resources

    def _wait_for_room(self, workers: list[dict[str, float]]) -> None:
        """Until there is room for the least number of workers; nodes that went may come back at any time."""
        is_said = False
        while self._stop is None and not has_room(workers, self._seconds):
            if not is_said:
                say(f"train: waits until the Ray cluster has room for {len(workers)} workers again")
                is_said = True

    def _checkpoints(self) -> set[str]:
        store = self._run.workspace.folder("train")
        return {str(file) for file, _ in store.files(".pt", recursive=True)}


def _on_cpu(run: StageRun) -> StageRun:
    return replace(run, config=run.config.model_copy(update={"device": "cpu"}))


def failure_of(error: Exception) -> HolismError | str | None:
    """What ended a group: an error that the user can put right, what happened to it in words, or only want of room."""
    from ray.exceptions import RayActorError
    from ray.train import ControllerError, WorkerGroupError
    from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

    if isinstance(error, ControllerError):
        cause = error.controller_failure
        is_want_of_room = isinstance(cause, WorkerGroupStartupTimeoutError)
        return None if is_want_of_room else f"Ray Train could not start them ({reason(cause)})"
    if isinstance(error, RayActorError):
        return f"Ray Train's controller was lost: {_death(error)}"
    if not isinstance(error, WorkerGroupError):
        raise error
    found = [
        (rank, getattr(failure, "health_check_failure", failure)) for rank, failure in error.worker_failures.items()
    ]
    return min((_told(rank, failure) for rank, failure in found), key=lambda told: told[0])[1]


def _told(rank: int, failure: Exception) -> tuple[int, HolismError | str]:
    """What happened to a rank, after a number that is lower for a cause than for what follows from it."""
    from ray.exceptions import RayError

    if isinstance(failure, HolismError):
        return 0, failure
    if isinstance(failure, RayError):
        return 1, f"rank {rank} was lost: {_death(failure)}"
    return 2, f"rank {rank} failed with {type(failure).__name__} ({reason(failure)})"


def _death(failure: Exception) -> str:
    """Why an actor of Ray is dead. Ray has no types for it, and several lines of text."""
    text = str(failure)
    if "node has died" in text:
        return "its node has gone"
    if "OUT_OF_MEMORY" in text or "connection error" in text:  # ended by Ray, or by the system (SIGKILL)
        return "its process was ended, most often for want of memory"
    detail = re.search(r"exit detail: ([^.\n]+)", text)
    return f"its process ended ({detail[1] if detail else reason(failure)})"
