"""Clean processes for work beside training: forked from a server (forkserver), never from this process.

One with threads, open file systems, CUDA or a Ray connection cannot be forked safely, and inside a Prefect task such a
child ends at once. The server has the loader imported, so a process more costs little time and memory
(docs/training.md has figures).
"""

import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import context, forkserver
from types import TracebackType
from typing import Any

from pipeline.processes import without_main
from pipeline.stops import SIGNALS

SECONDS = 5.0  # that a process may take to be gone


class _Process(context.ForkServerProcess):
    """Does not import this process's main module."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # the standard library's name
        with without_main():
            return context.ForkServerProcess._Popen(process)


class CleanContext(context.ForkServerContext):
    """For whoever takes a context of multiprocessing."""

    Process = _Process


def start_server() -> None:
    """Starts the server that workers are forked from, unless it runs. Returns at once: it imports beside this process.

    Stops are for the training process alone, whose end is that of the server and the workers: they have them blocked,
    so that a batch which the training process still wants is not lost.
    """
    multiprocessing.set_forkserver_preload(["training.loader"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(*_: Any) -> None:
    """Called in a worker, which is the server's child: neither would notice the death of the process they serve."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    def say(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        """For the thread that hands out tensors: it may see a connection break before `end` sees why."""
        if issubclass(kind, (ConnectionError, EOFError)):
            parent.join(SECONDS)
        if parent.is_alive():
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = say
    threading.Thread(target=end, name="parent", daemon=True).start()
