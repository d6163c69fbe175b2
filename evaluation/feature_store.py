"""Arrays of features on disk, in shards of rows: what a kill interrupts goes on where it was.

A shard is a file of its own, written at once, with a checksum behind it; a damaged one is worth no more than none.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline import identity
from pipeline.storage import Location

CHECKSUM = identity.ID_LENGTH  # bytes behind a shard


@dataclass(frozen=True)
class FeatureStore:
    """`rows` rows in shards of `size`, in a folder named after what they depend on; without a folder none is kept."""

    folder: Location | None
    rows: int
    size: int

    def shards(self) -> Iterator[range]:
        """The rows of each shard."""
        return (range(start, min(start + self.size, self.rows)) for start in range(0, self.rows, self.size))

    def has(self, shard: range) -> bool:
        """Whether a shard is there, sound or not."""
        return self.folder is not None and _file(self.folder, shard).exists()

    def write(self, shard: range, features: np.ndarray) -> None:
        """Keep the features of a shard's rows."""
        if self.folder is None:
            return
        buffer = io.BytesIO()
        np.save(buffer, features)
        _file(self.folder, shard).write(buffer.getvalue() + identity.digest(buffer.getvalue()).encode())

    def read(self, shard: range) -> np.ndarray | None:
        """A shard's features; None where they are not there, or not as they were written."""
        if self.folder is None or not (file := _file(self.folder, shard)).exists():
            return None
        data = file.read()
        array, checksum = data[:-CHECKSUM], data[-CHECKSUM:]
        if identity.digest(array).encode() != checksum:
            return None
        found: np.ndarray = np.load(io.BytesIO(array), allow_pickle=False)
        return found


def _file(folder: Location, shard: range) -> Location:
    return folder / f"{shard.start}-{shard.stop}.npy"


class Assembled:
    """The rows of all shards in one array, which is made when the first of them is there."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._array: np.ndarray | None = None

    def put(self, shard: range, features: np.ndarray) -> None:
        """Take a shard's features in."""
        if self._array is None:
            self._array = np.empty((self._rows, *features.shape[1:]), dtype=features.dtype)
        self._array[shard.start : shard.stop] = features

    def array(self) -> np.ndarray:
        """All rows."""
        assert self._array is not None
        return self._array
