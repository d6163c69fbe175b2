"""Batches made ahead by clean processes (`training.processes`).

What goes wrong in a worker comes back as a value and is raised here as it was, without a second traceback.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from torch.utils.data import DataLoader, Dataset

from pipeline.errors import HolismError, ScheduleError
from training.batches import Batch, BatchMaker, Share
from training.processes import SECONDS, CleanContext, end_with_parent, start_server
from training.read_ahead import ReadAhead


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
            multiprocessing_context=CleanContext(),
            worker_init_fn=end_with_parent,
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


def _death(exitcode: int, workers: int) -> ScheduleError:
    how = f"with status {exitcode}"
    if exitcode < 0:
        with contextlib.suppress(ValueError):
            how = f"by {signal.Signals(-exitcode).name}"
    return ScheduleError(
        f"a loader process of training ended {how}, most often for want of memory; lower train.workers (found "
        f"{workers}) or free memory, and give the same command again: training goes on from its last checkpoint"
    )
