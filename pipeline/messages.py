"""Where the messages of a run go: to stderr, or to a listener, such as Prefect's log.

A listener hears all threads of this process, as stages work with several.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.presentable import presentable

Listener = Callable[[str, bool], None]  # a line, and whether it is a warning
PROGRESS_SECONDS = 30.0  # between progress lines that a listener hears
_listeners: list[tuple[Listener, float]] = []


def say(text: str, *, warning: bool = False) -> None:
    """Tell one line to the listener, or to stderr."""
    line = presentable(text)
    if _listeners:
        _listeners[-1][0](line, warning)
    else:
        print(line, file=sys.stderr, flush=True)


def progress_seconds() -> float | None:
    """How often the listener wants to hear of progress; None where nobody listens."""
    return _listeners[-1][1] if _listeners else None


@contextmanager
def heard_by(listener: Listener, progress_seconds: float = PROGRESS_SECONDS) -> Iterator[None]:
    """Give all messages to `listener` for as long as this lasts, progress every so many seconds."""
    entry = (listener, progress_seconds)
    _listeners.append(entry)
    try:
        yield
    finally:
        _listeners.remove(entry)
