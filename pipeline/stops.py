"""Stops by hand: Ctrl-C, and SIGTERM as batch systems, containers and service managers send it.

Both raise in the main thread, so everything that is under way cleans up as it leaves. A second signal ends at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """Somebody stopped this process. Libraries know what to do with a `KeyboardInterrupt`."""


class Stop:
    """Whether a signal came, and which. Whatever is raised after it is a consequence of it."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def status(self) -> int:
        """The exit status of a stopped process: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def __call__(self, number: int, _: FrameType | None) -> None:
        """The handler of both signals."""
        if self.signal is not None:
            end_children()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal = signal.Signals(number)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # that children end is no news now: torch would raise it
        raise StoppedError(f"stopped by {self.signal.name}")


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle both signals for as long as this lasts (in the main thread; others get none)."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        _handle(before)


def under_way() -> bool:
    """Whether somebody has stopped this process: what is raised now is a consequence of that."""
    handler = signal.getsignal(signal.SIGTERM)
    return isinstance(handler, Stop) and handler.signal is not None


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers back that somebody else's code in here replaces: Ray's would end the process on the spot."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            _handle(before)


def leave_to_parent() -> None:
    """In a process of a pool: Ctrl-C reaches it too, but is its parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_children() -> None:
    """End processes of pools and loaders that a stop has left. What they had in hand is not committed."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def _handle(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None: it is not Python's
            signal.signal(number, handler)  # type: ignore[arg-type]
