"""Stops by hand: Ctrl-C, and SIGTERM as batch systems, containers and service managers send it.

Both raise in the main thread, so everything that is under way cleans up as it leaves. A second signal ends at once.
`safe_points` sees to it that this does no harm.
"""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from pipeline.safe_points import SafePoint, at_safe_points

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 10.0  # seconds that a stop which is held back waits for its moment


class StoppedError(KeyboardInterrupt):
    """Somebody stopped this process. Libraries know what to do with a `KeyboardInterrupt`."""


class Stop:
    """Whether a signal came, and which. Whatever is raised after it is a consequence of it."""

    def __init__(self, point: SafePoint | None = None) -> None:
        self._point = point

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that came; None while none has."""
        return self._point.signal if self._point else None

    @property
    def status(self) -> int:
        """The exit status of a stopped process: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def settle(self) -> None:
        """Called where a consequence was seen: the signal itself raises nothing any more."""
        if self._point:
            self._point.settle()


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Handle both signals for as long as this lasts (in the main thread; others get none), but for ignored ones."""
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    with at_safe_points(_heard(), _raise, _end) as point:
        try:
            yield Stop(point)
        finally:
            point.settle()


def _raise(number: int) -> NoReturn:
    raise StoppedError(f"stopped by {signal.Signals(number).name}")


def _end(number: int) -> None:
    end_children()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def came() -> signal.Signals | None:
    """The signal that stops this process, if one came: what is raised now is a consequence of it."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler.signal if isinstance(handler, (SafePoint, Held)) else None


def under_way() -> bool:
    """Whether somebody has stopped this process."""
    return came() is not None


class Held:
    """A stop that waits until work is at a point where it can be left; it comes anyway after `PATIENCE`.

    A second Ctrl-C does not wait. A second SIGTERM does: whoever starts processes passes on what these get as well.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.before: dict[signal.Signals, object] = {}
        self._urgent = self._delivered = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals."""
        again = self.signal is not None
        self.signal = self.signal or signal.Signals(number)
        if self._urgent or (again and number == signal.SIGINT):
            self.deliver(frame)
        elif not again:
            _thread.start_new_thread(self._hurry, ())  # takes no lock that the main thread may have just now

    def join(self) -> signal.Signals:
        """What stops this process: the signal that came, or SIGTERM, as another process that works with it got one."""
        self.signal = self.signal or signal.SIGTERM
        return self.signal

    def deliver(self, frame: FrameType | None = None) -> None:
        """Do what the signal that came would have done, if any came: now, or soon if a frame was interrupted."""
        if self.signal is None or self._delivered:
            return
        self._delivered = True
        if not self.before:  # not in the main thread
            raise StoppedError(f"stopped by {self.signal.name}")
        _handle(self.before)
        handler = self.before[self.signal]
        if callable(handler):
            handler(self.signal, frame)
        else:
            os.kill(os.getpid(), self.signal)

    def _hurry(self) -> None:
        time.sleep(PATIENCE)
        if self.signal is not None and not self._delivered:
            self._urgent = True
            os.kill(os.getpid(), self.signal)


@contextmanager
def held_back() -> Iterator[Held]:
    """Hold a stop back for as long as this lasts, or until it is delivered.

    Whatever is raised after the signal is a consequence of it. Threads beside the main one get no signals; they stop
    when `ask_threads` says so. A signal that is ignored, as Ctrl-C is in the background of a script, stays so.
    """
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        with _asked.of(held):
            yield held
        return
    held.before = {number: signal.signal(number, held) for number in _heard()}
    try:
        for handler in held.before.values():
            if isinstance(handler, SafePoint) and (number := handler.take_over()):
                held(number, None)
        yield held
    finally:
        _handle(held.before)
        held.deliver()


class _Asked:
    """The stop that threads were asked for, and those that hold it back."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._held: list[Held] = []

    @contextmanager
    def of(self, held: Held) -> Iterator[None]:
        self._held.append(held)
        held.signal = self.signal  # it may have come before
        try:
            yield
        finally:
            self._held.remove(held)

    def __call__(self, number: signal.Signals) -> None:
        self.signal = number
        for held in self._held:
            held.signal = held.signal or number


_asked = _Asked()


def ask_threads(number: signal.Signals) -> None:
    """Stop what threads of this process hold back now or begin later, as this signal would stop the main thread."""
    _asked(number)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put the handlers back that somebody else's code in here replaces: Ray's would end the process on the spot."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            _handle(before)


def end_children() -> None:
    """End processes of pools and loaders that a stop has left. What they had in hand is not committed."""
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


def _heard() -> list[signal.Signals]:
    """Those that whoever started this program did not have it ignore."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _handle(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        if handler is not None:  # None: it is not Python's
            signal.signal(number, handler)  # type: ignore[arg-type]
