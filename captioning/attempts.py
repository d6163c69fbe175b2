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
        """The note of this work."""
        note = store / ATTEMPTS / f"{name}.json"
        return cls(note, _count(note) if note.exists() else 0)

    def begin(self) -> None:
        """Note that the work is taken in hand."""
        self._write(self.count + 1)

    def progress(self) -> None:
        """Something was answered, so the deaths before it need not be the engine's habit."""
        self._write(1)

    def withdraw(self) -> None:
        """Take the note back: the work was stopped by hand, and nobody died."""
        self.reset(self.count - 1)

    def reset(self, count: int) -> None:
        """Make it so many."""
        if count > 0:
            self._write(count)
        else:
            self.clear()

    def clear(self) -> None:
        """The work is committed (or nothing more is known about it)."""
        self.count = 0
        self.note.remove()

    def _write(self, count: int) -> None:
        self.count = count
        self.note.write(json.dumps({"count": count}).encode())


def counts(store: Location) -> dict[str, int]:
    """All notes of a store, by their place, with their counts."""
    notes = (note for note, _ in (store / ATTEMPTS).files(".json", recursive=True))
    return {note.uri: _count(note) for note in notes}


def take_back(store: Location, before: dict[str, int]) -> None:
    """Make all notes as they were: the run was stopped by somebody or for a reason it named, and nobody died."""
    for uri, count in counts(store).items():
        attempt = Attempt(Location.of(uri), count)
        if count > before.get(uri, 0):
            attempt.reset(before.get(uri, 0))


def _count(note: Location) -> int:
    """What a note says; a torn one counts as one attempt."""
    try:
        return int(json.loads(note.read())["count"])
    except (ValueError, TypeError, KeyError):
        return 1
