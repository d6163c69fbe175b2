"""Handlers of signals that raise, run at a point of the main thread where raising does no harm.

Python runs a handler between two instructions of the main thread, whichever these are. What it raises can leave a lock
of the standard library taken for ever, on which a pool's threads then wait, or lose a process that was just started;
in a finalizer it is swallowed; and a signal that comes just before the main thread begins to wait does not wake it.
So a handler waits here until the main thread has left the standard library or waits in it, what was swallowed is
raised again, and a thread of its own makes the main thread look.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

NUDGE = signal.SIGURG  # wakes the main thread: ignored by default, and of no other use here
NUDGES = 3  # for each signal, as the first may come just before the main thread waits, too
SECONDS = 0.02  # between two of them
LOOKS = 50  # after which a handler runs wherever the main thread is


class SafePoint:
    """The handler of several signals, each of which has a handler of its own that runs a moment later.

    `signal` is the first that came.
    """

    def __init__(self, handlers: Mapping[signal.Signals, Handler], nudged: int) -> None:
        self.signal: signal.Signals | None = None
        self._handlers = handlers
        self._nudged: int | None = nudged
        self._process = os.getpid()
        self._waiting: Callable[[FrameType | None], object] | None = None
        self._looks = 0
        self._place: tuple[int, int] | None = None  # where the main thread was at the last look
        self._raised: tuple[int, type] | None = None  # what a handler raised: a reference would keep its frames

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal came. One that comes while another waits is the same wish said twice."""
        self.signal = self.signal or signal.Signals(number)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # that children end is no news now: torch would raise it
        if self._waiting is None:
            self._wait(partial(self._handlers[signal.Signals(number)], number))
            self.look(frame)

    def look(self, frame: FrameType | None) -> None:
        """Run the handler that waits, if any does, unless the main thread is at a bad point."""
        if self._waiting is None:
            return
        while frame is not None and frame.f_globals is globals():  # it came while we were looking
            frame = frame.f_back
        if frame is not None and _is_of_standard_library(frame) and self._will_look_again():
            place, self._looks = (id(frame), frame.f_lasti), self._looks + 1
            if place != self._place and self._looks < LOOKS:  # at the same place twice: it waits there
                self._place = place
                self._nudge()
                return
        run, self._waiting = self._waiting, None
        try:
            run(frame)
        except BaseException as error:
            self._raised = (id(error), type(error))
            raise

    def take_back(self, error: BaseException | None) -> bool:
        """Whether a handler raised this error, which was swallowed. It is raised again."""
        if (id(error), type(error)) != self._raised:
            return False
        assert error is not None
        self._wait(partial(_raise, error))
        self._nudge()
        return True

    def take_over(self) -> signal.Signals | None:
        """The signal whose handler waits, if any does, for the caller to handle instead."""
        waiting, self._waiting = self._waiting, None
        return self.signal if waiting is not None else None

    def close(self) -> None:
        """From now on handlers run at once."""
        nudged, self._nudged = self._nudged, None
        if nudged is not None:
            os.close(nudged)

    def _wait(self, run: Callable[[FrameType | None], object]) -> None:
        self._waiting, self._looks, self._place = run, 0, None

    def _will_look_again(self) -> bool:
        """Not in a process that was forked from this one: it has the handlers, and nobody who nudges it."""
        return self._nudged is not None and self._process == os.getpid()

    def _nudge(self) -> None:
        if self._nudged is not None:
            with suppress(BlockingIOError):  # full: nudges are on their way
                os.write(self._nudged, bytes([self.signal or NUDGE]))


@contextmanager
def at_safe_points(handlers: Mapping[signal.Signals, Handler]) -> Iterator[SafePoint]:
    """Handle these signals for as long as this lasts. For the main thread.

    One whose handler still waits at the end comes again, for whoever handled it before.
    """
    heard, nudged = os.pipe()
    os.set_blocking(nudged, False)
    point = SafePoint(handlers, nudged)
    hook = sys.unraisablehook
    before = {number: signal.signal(number, point) for number in handlers}
    before[NUDGE] = signal.signal(NUDGE, lambda _, frame: point.look(frame))
    woken = signal.set_wakeup_fd(nudged, warn_on_full_buffer=False)
    sys.unraisablehook = lambda what: None if point.take_back(what.exc_value) else hook(what)
    threading.Thread(target=_nudge, args=(heard, frozenset(handlers)), name="signals", daemon=True).start()
    try:
        yield point
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            if handler is not None:  # None: it is not Python's
                signal.signal(number, handler)
        point.close()
        if (late := point.take_over()) is not None:
            signal.raise_signal(late)


def _nudge(heard: int, numbers: frozenset[signal.Signals]) -> None:
    """Make the main thread look after each of these signals; Python writes the number of every signal that comes."""
    main = threading.main_thread().ident
    assert main is not None
    with os.fdopen(heard, "rb", buffering=0) as pipe:
        while came := pipe.read(4096):
            for _ in range(NUDGES if numbers & set(came) else 0):
                time.sleep(SECONDS)
                signal.pthread_kill(main, NUDGE)


def _is_of_standard_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in sys.stdlib_module_names


def _raise(error: BaseException, _: FrameType | None) -> None:
    raise error
