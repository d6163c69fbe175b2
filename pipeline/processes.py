"""Processes of pools: fresh interpreters that work for this process, whose stops are its business alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import context
from types import ModuleType
from typing import Any


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that are started in here do not import this process's main module, of which workers need nothing.

    It takes a Prefect run seconds, and a script that does not guard its `__main__` would run in every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Process(context.SpawnProcess):
    """Ctrl-C reaches all processes of a terminal; this one has it blocked from its first instruction on."""

    @staticmethod
    def _Popen(process: Any) -> Any:  # the standard library's name
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with without_main():
                return context.SpawnProcess._Popen(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class SpawnContext(context.SpawnContext):
    """For whoever takes a context of multiprocessing."""

    Process = _Process


def process_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of so many processes."""
    return ProcessPoolExecutor(workers, mp_context=SpawnContext())
