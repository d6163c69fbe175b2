"""Notes of attempts, kept in the store, by which poison is found whatever dies: engine, actor or everything.

Before a chunk its attempt is noted; after its commit the note goes. A note that is still there at the next attempt
means that somebody died on this chunk. It then goes image by image, the image in hand being noted as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from pipeline.storage import Location

ATTEMPTS = "_attempts"
TRIES = 2  # an image that was in hand at this many deaths gets an error row


@dataclass
class Attempt:
    """What is known of the attempts at one part. `tries` counts deaths by the image that was in hand."""

    note: Location
    count: int = 0
    tries: dict[str, int] = field(default_factory=dict)

    @classmethod
    def at(cls, store: Location, part: str) -> Attempt:
        """The note of this part; a torn one counts as one attempt."""
        note = store / ATTEMPTS / f"{part}.json"
        if not note.exists():
            return cls(note)
        try:
            data = json.loads(note.read())
            return cls(note, int(data["count"]), {str(key): int(tries) for key, tries in data["tries"].items()})
        except (ValueError, TypeError, KeyError):
            return cls(note, 1)

    @property
    def image_by_image(self) -> bool:
        """Whether this chunk was attempted before: then nothing may share its fate."""
        return self.count > 1

    def begin(self) -> None:
        """Note that the chunk is taken in hand."""
        self.count += 1
        self._write()

    def poisonous(self, key: str) -> bool:
        """Whether the engine died on this image often enough."""
        return self.tries.get(key, 0) >= TRIES

    def take(self, key: str) -> None:
        """Note that this image is taken in hand."""
        self.tries[key] = self.tries.get(key, 0) + 1
        self._write()

    def survived(self, key: str) -> None:
        """The image was answered: it is not to blame. Written with the next image's note."""
        self.tries.pop(key, None)

    def withdraw(self, key: str | None = None) -> None:
        """Take the last note back: the work was stopped by hand, and nobody died."""
        self.count -= 1
        if key is not None and self.tries.get(key):
            self.tries[key] -= 1
        self._write()

    def clear(self) -> None:
        """The part is committed."""
        self.note.remove()

    def _write(self) -> None:
        self.note.write(json.dumps({"count": self.count, "tries": self.tries}).encode())
