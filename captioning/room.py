"""Who may use an engine at a time: several pieces of work together, or a suspect alone.

Work that somebody died on is tried again, and must be alone with the engine then: otherwise another piece of work
could be the one that kills it, and an innocent image would be blamed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Held together by many threads, or alone by one. Whoever wants to be alone goes before newcomers."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._inside = 0
        self._alone_wanted = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Be inside with others."""
        with self._change:
            self._change.wait_for(lambda: self._inside >= 0 and not self._alone_wanted)
            self._inside += 1
        try:
            yield
        finally:
            with self._change:
                self._inside -= 1
                self._change.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until all others have left, and keep them out."""
        with self._change:
            self._alone_wanted += 1
            self._change.wait_for(lambda: self._inside == 0)
            self._alone_wanted -= 1
            self._inside = -1
        try:
            yield
        finally:
            with self._change:
                self._inside = 0
                self._change.notify_all()
