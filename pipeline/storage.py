"""Files on any fsspec location, written in one atomic step.

`Location` is a small picklable path: local folders, `s3://`, `gs://` and, in tests, `memory://` look the same.
A reader never sees half a file: locally the data goes to a hidden neighbour and is renamed, on an object
store it is one PUT.
"""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import fsspec

TEMPORARY = ".part-"  # prefix of files being written; never matched by a glob


@lru_cache(maxsize=64)
def _filesystem(protocol: str) -> Any:
    return fsspec.filesystem(protocol)


@dataclass(frozen=True, order=True)
class Location:
    """A file or folder, by URI. Local paths are made absolute."""

    uri: str

    @classmethod
    def of(cls, path: str | os.PathLike[str] | Location) -> Location:
        """Make a location of a path or URI."""
        if isinstance(path, Location):
            return path
        text = os.fspath(path)
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)))
        if text.startswith("file://"):
            return cls(os.path.abspath(text.removeprefix("file://")))
        return cls(text.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether this is a path of this machine's file system."""
        return "://" not in self.uri

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.uri)

    @property
    def stem(self) -> str:
        """The name up to its first dot."""
        return self.name.split(".", 1)[0]

    @property
    def parent(self) -> Location:
        """The folder this lies in."""
        return Location(posixpath.dirname(self.uri))

    @property
    def _fs(self) -> Any:
        return _filesystem("file" if self.is_local else self.uri.split("://", 1)[0])

    @property
    def _path(self) -> str:
        return self.uri if self.is_local else str(self._fs._strip_protocol(self.uri))

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        return bool(self._fs.exists(self._path))

    def is_dir(self) -> bool:
        """Whether there is a folder."""
        return bool(self._fs.isdir(self._path))

    def size(self) -> int:
        """Size of the file in bytes."""
        return int(self._fs.size(self._path))

    def info(self) -> dict[str, Any]:
        """What the file system knows: `size`, `type`, and a time of change where it has one."""
        return dict(self._fs.info(self._path))

    def read(self) -> bytes:
        """The whole file."""
        return bytes(self._fs.cat_file(self._path))

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`."""
        return bytes(self._fs.cat_file(self._path, start=offset, end=offset + size))

    def open(self, mode: str = "rb") -> IO[Any]:
        """Open for reading. Writing goes through `write`, which is atomic."""
        if "r" not in mode:
            raise ValueError(f"open({mode!r}): files are written by Location.write")
        handle: IO[Any] = self._fs.open(self._path, mode)
        return handle

    def write(self, data: bytes) -> None:
        """Write the whole file in one atomic step, creating folders as needed."""
        if not self.is_local:
            self._fs.pipe_file(self._path, data)
            return
        folder, name = os.path.split(self.uri)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"{TEMPORARY}{name}-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with open(temporary, "xb") as handle:
                handle.write(data)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, self.uri)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise

    def remove(self, *, recursive: bool = False) -> None:
        """Delete the file (or the folder, if `recursive`); nothing happens if there is none."""
        if self.exists():
            self._fs.rm(self._path, recursive=recursive)

    def make_folder(self) -> None:
        """Create the folder and its parents."""
        self._fs.makedirs(self._path, exist_ok=True)

    def files(self, suffix: str = "", *, recursive: bool = False) -> Iterator[tuple[Location, int]]:
        """Yield (file, size in bytes) below this folder whose name ends in `suffix`, sorted by path."""
        for location, info in self.entries(recursive=recursive):
            if location.name.endswith(suffix) and not location.name.startswith("."):
                yield location, int(info.get("size") or 0)

    def entries(self, *, recursive: bool = False) -> Iterator[tuple[Location, dict[str, Any]]]:
        """Yield (file, what `info` says of it) below this folder, hidden files too, sorted by path."""
        if not self.is_dir():
            return
        found = self._fs.find(self._path, maxdepth=None if recursive else 1, detail=True)
        for path in sorted(found):
            yield self._at(path), found[path]

    def _at(self, path: str) -> Location:
        return Location(path) if self.is_local else Location(f"{self.uri.split('://', 1)[0]}://{path.lstrip('/')}")
