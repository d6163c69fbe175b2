"""A handler of signals that raises, at a point of the main thread where this does no harm.

Python runs a handler between two instructions of the main thread, whichever these are. What it raises can leave a lock
of the standard library taken for ever, on which a pool's threads then wait, or lose a process that was just started;
in a finalizer it is swallowed; and a signal that comes just before the main thread begins to wait does not wake it.
So this handler waits until the main thread has left the standard library, or waits in it; what was swallowed is raised
again; and a thread of its own makes the main thread look.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

NUDGE = signal.SIGURG  # wakes the main thread: ignored by default, and of no other use here
NUDGES = 3  # for each signal, as the first may come just before the main thread waits, too
SECONDS = 0.02  # between two of them
LOOKS = 250  # after which it raises wherever the main thread is
HANDLING = (__name__, "pipeline.stops")  # modules to which signals belong: they are not left in the middle either


class SafePoint:
    """The handler: `first` is to raise and is called a moment after the first signal, `further` at each later one.

    `signal` is the first that came; `is_over`, that `first` was called. `is_at_rest` is set by the thread that nudges.
    """

    def __init__(self, first: Callable[[int], object], further: Callable[[int], object], nudged: int) -> None:
        self.signal: signal.Signals | None = None
        self.is_at_rest = False
        self._first, self._further = first, further
        self._nudged: int | None = nudged
        self._process = os.getpid()
        self._waits = self.is_over = False
        self._looks = 0
        self._place: tuple[FrameType, int] | None = None  # where the main thread was at the last look
        self._raised: tuple[int, type] | None = None  # id and type: a reference would keep its frames

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal came. Without a frame there is nothing to wait for."""
        self.signal = self.signal or signal.Signals(number)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # that children end is no news now: torch would raise it
        if self.is_over:
            self._further(number)
        else:
            self._waits = True
            self.look(frame)

    def look(self, frame: FrameType | None) -> None:
        """Raise if that waits to be done and the main thread is at a good point."""
        if self._waits and not self._is_bad(frame):
            assert self.signal is not None
            self.settle()
            try:
                self._first(self.signal)
            except BaseException as error:
                self._raised = (id(error), type(error))
                raise

    def settle(self) -> None:
        """The first signal is dealt with; nothing is raised for it any more."""
        self.take_over()
        self.is_over = True

    def take_over(self) -> signal.Signals | None:
        """The signal that waits, if one does, for the caller to handle instead."""
        waits, self._waits, self._looks, self._place = self._waits, False, 0, None
        return self.signal if waits else None

    def take_back(self, error: BaseException | None) -> bool:
        """Whether this error is what was raised; then it was swallowed, and is raised again."""
        if (id(error), type(error)) != self._raised:
            return False
        self._waits, self.is_over = True, False
        self._nudge()
        return True

    def close(self) -> None:
        """Nobody looks any more."""
        nudged, self._nudged = self._nudged, None
        if nudged is not None:
            os.close(nudged)

    def _is_bad(self, frame: FrameType | None) -> bool:
        while frame is not None and frame.f_globals.get("__name__") in HANDLING:
            frame = frame.f_back
        if frame is None or not _is_of_standard_library(frame) or not self._will_look_again():
            return False
        rests, self.is_at_rest = self.is_at_rest, False
        before, self._place = self._place, (frame, frame.f_lasti)
        self._looks += 1
        if self._looks == LOOKS or (rests and self._place == before):
            return False
        self._nudge()
        return True

    def _will_look_again(self) -> bool:
        """Not in a process that was forked from this one: it has the handler, and nobody who nudges it."""
        return self._nudged is not None and self._process == os.getpid()

    def _nudge(self) -> None:
        if self._nudged is not None:
            with suppress(BlockingIOError):  # full: nudges are on their way
                os.write(self._nudged, bytes([self.signal or NUDGE]))


@contextmanager
def at_safe_points(
    numbers: Iterable[signal.Signals], first: Callable[[int], object], further: Callable[[int], object]
) -> Iterator[SafePoint]:
    """Handle these signals for as long as this lasts. For the main thread."""
    heard, nudged = os.pipe()
    os.set_blocking(nudged, False)
    point, hook = SafePoint(first, further, nudged), sys.unraisablehook
    threading.Thread(target=_nudge, args=(heard, frozenset(numbers), point), name="signals", daemon=True).start()
    outer = signal.getsignal(NUDGE)

    def look(number: int, frame: FrameType | None) -> None:
        point.look(frame)
        if callable(outer):
            outer(number, frame)

    woken = signal.set_wakeup_fd(nudged, warn_on_full_buffer=False)
    sys.unraisablehook = lambda what: None if point.take_back(what.exc_value) else hook(what)
    before = {NUDGE: signal.signal(NUDGE, look)} | {number: signal.signal(number, point) for number in numbers}
    try:
        yield point
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: it is not Python's
                signal.signal(number, handler)
        sys.unraisablehook = hook
        signal.set_wakeup_fd(woken)
        point.close()


def _nudge(heard: int, numbers: frozenset[signal.Signals], point: SafePoint) -> None:
    """Make the main thread look after each of these signals; Python writes the number of every signal that comes."""
    main = threading.main_thread()
    assert main.ident is not None
    with os.fdopen(heard, "rb", buffering=0) as pipe:
        while came := pipe.read(4096):
            for _ in range(NUDGES if numbers & set(came) else 0):
                if point.is_over:
                    break
                before = _sleeps(main.native_id)
                time.sleep(SECONDS)
                point.is_at_rest = before is not None and before == _sleeps(main.native_id)
                signal.pthread_kill(main.ident, NUDGE)


def _sleeps(thread: int | None) -> str | None:
    """How often a thread of this process has gone to sleep if it is asleep now, "" where the system does not say.

    One that waits for Python's own lock wakes up all the time.
    """
    try:
        lines = Path(f"/proc/self/task/{thread}/status").read_text().splitlines()
    except OSError:
        return ""
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return status.get("voluntary_ctxt_switches", "") if status.get("State", "S").startswith("S") else None


def _is_of_standard_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in sys.stdlib_module_names
