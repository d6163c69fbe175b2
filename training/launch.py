"""The train stage on ranks of this machine: torchrun's agent, started from here, starts and watches them.

A rank is a process that runs the stage as this one would (`training.rank`). What it returns, or what went wrong in one
sentence, comes back through a folder, so the command line and the flow see what they would see of a single process.
"""

import importlib
import logging
import os
import pickle
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.errors import ConfigError, HolismError, ScheduleError
from pipeline.stage import Outcome, StageRun
from pipeline.stops import handlers_kept
from training.ranks import LostRankError

RUN, OUTCOME, ERROR = "run", "outcome", "error-"  # files in the folder; an error's name ends in the rank
SECONDS = 17  # that ranks may take to be gone, before they are killed
AGAIN = "the same command goes on from the last checkpoint"
AGENT = "torch.distributed.elastic"


def launched(run: StageRun, ranks: int, services: tuple[str, ...]) -> Outcome:
    """The stage's outcome, made by so many ranks, which get the named services.

    Raises what a rank raised, and ScheduleError where one died.
    """
    _require_devices(run.config.device, ranks)
    handed_in = {name: run.services[name] for name in services if name in run.services}
    with tempfile.TemporaryDirectory(prefix="holism-ranks-") as name:
        folder = Path(name)
        (folder / RUN).write_bytes(pickle.dumps(replace(run, services=handed_in)))
        _run_agent(folder, ranks)
        outcome: Outcome = pickle.loads((folder / OUTCOME).read_bytes())
    return outcome


def _run_agent(folder: Path, ranks: int) -> None:
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        shutdown_timeout=SECONDS,
        signals_to_handle="SIGTERM,SIGINT",
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs")),
    )
    try:
        with ExitStack() as stack:
            stack.enter_context(handlers_kept())
            stack.enter_context(_environment(_of_ranks(ranks)))
            stack.enter_context(_quiet_agent())
            elastic_launch(config, sys.executable)("-m", "training.rank", str(folder))
    except SignalException as stop:  # the ranks have left: now this process does, as if there were none
        signal.raise_signal(stop.sigval)
        raise
    except ChildFailedError as error:
        raise _cause(folder, {rank: failure.exitcode for rank, failure in error.failures.items()}, ranks) from error


def _cause(folder: Path, statuses: Mapping[int, int], ranks: int) -> HolismError:
    """What ended the ranks: the others only follow the first."""
    said = [pickle.loads(file.read_bytes()) for file in sorted(folder.glob(f"{ERROR}*"))]
    if own := [error for error in said if not isinstance(error, LostRankError)]:
        return own[0]
    for rank, status in sorted(statuses.items()):
        if status < 0 and -status != signal.SIGTERM:
            return ScheduleError(
                f"rank {rank} of {ranks} of train was ended by {signal.Signals(-status).name}, most often for want of "
                f"memory; lower train.micro_batch or free memory, {AGAIN}"
            )
    for rank, status in sorted(statuses.items()):
        if status > 0 and not (folder / f"{ERROR}{rank}").exists():
            return ScheduleError(f"rank {rank} of {ranks} of train ended with status {status}, as said above; {AGAIN}")
    return said[0] if said else ScheduleError(f"the ranks of train ended without a word; {AGAIN}")


def _require_devices(device: str, ranks: int) -> None:
    import torch

    found = torch.cuda.device_count() if device != "cpu" else 0
    if found and ranks > found:
        raise ConfigError(
            f"train.launch.ranks is {ranks}, but this machine has {found} GPUs; lower it, or use the CPU"
        )


def _of_ranks(ranks: int) -> dict[str, str]:
    """Variables that ranks get: packages of ours, and no more threads in all than there are cores."""
    here = str(Path(importlib.import_module("training").__file__ or "").parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, cores // ranks)))
    return {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": threads}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """What the agent logs of ranks that end, we say ourselves, in one sentence."""
    loggers: list[Any] = [logging.getLogger(name) for name in [*logging.root.manager.loggerDict] if AGENT in name]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger in loggers:
            logger.disabled = False
