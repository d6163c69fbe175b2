"""Where the messages of a run go: to stderr, or to a listener, such as Prefect's log.

A listener hears all threads of this process, as stages work with several.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.presentable import presentable

Listener = Callable[[str, bool], None]  # a line, and whether it is a warning
_listeners: list[Listener] = []


def say(text: str, *, warning: bool = False) -> None:
    """Tell one line to the listener, or to stderr."""
    line = presentable(text)
    if _listeners:
        _listeners[-1](line, warning)
    else:
        print(line, file=sys.stderr, flush=True)


def heard() -> bool:
    """Whether there is a listener."""
    return bool(_listeners)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Give all messages to `listener` for as long as this lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
