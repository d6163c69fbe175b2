"""Batches made ahead by processes of their own.

Loader processes are forked from a clean server (forkserver) and never from this process: one with threads, open file
systems, CUDA or a Ray connection cannot be forked safely, and inside a Prefect task such a child ends at once. The
server has this package imported, so a worker more costs little time and memory (docs/training.md has figures).

What goes wrong in a worker comes back as a value and is raised here as it was, without a second traceback.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from multiprocessing import context, forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from torch.utils.data import DataLoader, Dataset

from pipeline.errors import HolismError, ScheduleError
from pipeline.stops import SIGNALS
from training.batches import Batch, BatchMaker, Share
from training.read_ahead import ReadAhead

SECONDS = 5.0  # that a worker may take to be gone


class _Process(context.ForkServerProcess):
    """Does not import this process's main module, of which workers need nothing.

    It takes a Prefect run seconds, and a script that does not guard its `__main__` would run in every worker.
    """

    @staticmethod
    def _Popen(process: Any) -> Any:  # the standard library's name
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return context.ForkServerProcess._Popen(process)
        finally:
            sys.modules["__main__"] = main


class _Context(context.ForkServerContext):
    Process = _Process


def start_server() -> None:
    """Starts the server that workers are forked from, unless it runs. Returns at once: it imports beside this process.

    Stops are for the training process alone, whose end is that of the server and the workers: they have them blocked,
    so that a batch which the training process still wants is not lost.
    """
    multiprocessing.set_forkserver_preload([__name__])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def loader(batches: BatchMaker, start: int, workers: int, pin_memory: bool) -> Generator[Batch]:
    """The batches from step `start` to the last, in order, made ahead by `workers` processes.

    Close it (or use it up) to end the workers. Raises what a worker raised, ScheduleError where one died.
    """
    steps = range(start, batches.order.steps)
    with closing(ReadAhead(batches, start)) as ahead:
        shares = map(ahead.share, steps)
        if workers:
            yield from _by_workers(batches, shares, len(steps), workers, pin_memory)
            return
        made_here = map(batches.make, shares)
        yield from (batch.pin_memory() for batch in made_here) if pin_memory else made_here


def _by_workers(
    batches: BatchMaker, shares: Iterator[Share], count: int, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    start_server()
    others = set(multiprocessing.active_children())
    made = iter(
        DataLoader(
            _InWorker(batches),
            batch_size=None,
            sampler=shares,
            num_workers=workers,
            pin_memory=pin_memory,
            multiprocessing_context=_Context(),
            worker_init_fn=_end_with_parent,
        )
    )
    ours = set(multiprocessing.active_children()) - others
    try:
        for _ in range(count):
            found = _next(made, ours)
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        del made  # workers end with the last reference, which an error's traceback must not keep


def _next(made: Iterator[Batch | Exception], workers: Collection[BaseProcess]) -> Batch | Exception:
    try:
        return next(made)
    except (RuntimeError, ConnectionError, EOFError) as error:
        if not isinstance(error, RuntimeError):  # a batch's tensors are fetched from the worker, which is going
            wait([process.sentinel for process in workers], SECONDS)
        if died := [process.exitcode for process in workers if process.exitcode]:
            raise _death(died[0], len(workers)) from error
        raise


class _InWorker(Dataset):
    """A batch, or the error that stands in its place."""

    def __init__(self, batches: BatchMaker) -> None:
        self._batches = batches

    def __getitem__(self, share: Share) -> Batch | Exception:
        try:
            batch = self._batches.make(share)
        except (HolismError, OSError) as error:
            return error
        try:
            return batch.share()  # here and not in the queue's thread, where an error would be lost
        except RuntimeError as error:
            return ScheduleError(
                f"a loader process of training gets no shared memory for a batch ({str(error).splitlines()[0]}); give "
                "the machine more room in /dev/shm (docker run --shm-size), or lower train.workers"
            )


def _end_with_parent(_: int) -> None:
    """Workers are the server's children, and it lives as long as they: neither would notice this process's death."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, name="parent", daemon=True).start()


def _death(exitcode: int, workers: int) -> ScheduleError:
    how = f"with status {exitcode}"
    if exitcode < 0:
        with contextlib.suppress(ValueError):
            how = f"by {signal.Signals(-exitcode).name}"
    return ScheduleError(
        f"a loader process of training ended {how}, most often for want of memory; lower train.workers (found "
        f"{workers}) or free memory, and give the same command again: training goes on from its last checkpoint"
    )
