"""Notes of attempts, kept in the store, by which poison is found whatever dies: engine, actor or everything.

Before a piece of work its attempt is noted; after its commit the note goes. A note that is still there at the next
attempt means that somebody died on it. A chunk that was attempted before goes image by image, each image with a note
and a commit of its own; an image that was attempted twice is given up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from pipeline.storage import Location

ATTEMPTS = "_attempts"
TRIES = 2  # an image that was alone in hand at this many deaths gets error rows
HOPELESS = 8  # deaths at a chunk without one caption in between: then it is not the images


@dataclass
class Attempt:
    """How often a piece of work was begun, this time included, without being finished."""

    note: Location
    count: int = 0

    @classmethod
    def at(cls, store: Location, name: str) -> Attempt:
        """The note of this work; a torn one counts as one attempt."""
        note = store / ATTEMPTS / f"{name}.json"
        if not note.exists():
            return cls(note)
        try:
            return cls(note, int(json.loads(note.read())["count"]))
        except (ValueError, TypeError, KeyError):
            return cls(note, 1)

    def begin(self) -> None:
        """Note that the work is taken in hand."""
        self._write(self.count + 1)

    def progress(self) -> None:
        """Something was answered, so the deaths before it need not be the engine's habit."""
        self._write(1)

    def withdraw(self) -> None:
        """Take the note back: the work was stopped by hand, and nobody died."""
        if self.count > 1:
            self._write(self.count - 1)
        else:
            self.clear()

    def clear(self) -> None:
        """The work is committed (or nothing more is known about it)."""
        self.count = 0
        self.note.remove()

    def _write(self, count: int) -> None:
        self.count = count
        self.note.write(json.dumps({"count": count}).encode())
