"""Parts of remote shards on this machine's disk, shared by all its processes, within a limit.

A part is a span of bytes of a shard. It is asked of the store once, whichever process wants it first: the others wait
for it. It appears whole, by a rename, so whoever finds it can use it, and a process that is killed leaves a hidden
file that the next one removes. When room is needed, the parts that were not read for the longest time go. One that is
being read is an open file: its bytes stay until it is closed, whatever happens to its name.

Locks are flocks, which end with their process. On a file system without locks a part may be asked for twice, no more.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import faults, identity
from pipeline.storage import TEMPORARY, Location

Span = tuple[int, int]  # first byte, and the one after the last
LOCKS = 64  # files; parts that share one wait for each other
ROOM = ".lock-room"


class ShardCache:
    """Picklable; safe to use from threads and processes."""

    def __init__(self, folder: str | os.PathLike[str], limit: int) -> None:
        """`folder` is one of this machine, `limit` the bytes that may lie in it."""
        self.folder, self.limit = Path(folder), limit

    def read(self, shard: Location, span: Span, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of a shard, which lie in `span`.

        Raises what the store does, StoreError where there is no room.
        """
        try:
            file = os.open(self._path(shard, span), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            start = offset - span[0]
            return self._fetched(shard, span)[start : start + size]
        try:
            os.utime(file)  # the time of use, by which room is made
            return os.pread(file, size, offset - span[0])
        finally:
            os.close(file)

    def fetch(self, shard: Location, span: Span) -> None:
        """Has the span here, for those who read it later."""
        if not self._path(shard, span).exists():
            self._fetched(shard, span)

    def drop(self, shard: Location, span: Span) -> None:
        """Removes what turned out to be damaged."""
        self._path(shard, span).unlink(missing_ok=True)

    def _path(self, shard: Location, span: Span) -> Path:
        return self.folder / identity.digest([shard.uri, *span])

    def _fetched(self, shard: Location, span: Span) -> bytes:
        """The bytes of a span that was not here a moment ago."""
        path = self._path(shard, span)
        with self._alone(f".lock-{int(path.name[:8], 16) % LOCKS}"):
            with suppress(FileNotFoundError):  # another process has brought it
                return path.read_bytes()
            data = shard.read_range(span[0], span[1] - span[0])
            if len(data) <= self.limit:
                self._keep(path, data)
            return data

    def _keep(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
        with self._alone(ROOM):  # one process at a time makes room and writes, so that the limit holds
            try:
                self._make_room(len(data))
                temporary.write_bytes(data)
                with suppress(
                    FileNotFoundError
                ):  # where there are no locks, another may have taken it for a remainder
                    temporary.replace(path)
            except OSError as error:
                with suppress(OSError):
                    temporary.unlink()
                raise faults.of_file(error, path) from error

    def _make_room(self, size: int) -> None:
        """Removes what killed processes left, and the parts that were read the longest ago."""
        found: list[tuple[int, int, str]] = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.startswith(TEMPORARY):
                    os.unlink(entry.path)
                elif not entry.name.startswith("."):
                    with suppress(FileNotFoundError):
                        status = entry.stat()
                        found.append((status.st_mtime_ns, status.st_size, entry.path))
        used = sum(part_size for _, part_size, _ in found)
        for _, part_size, path in sorted(found):
            if used + size <= self.limit:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            used -= part_size

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Waits while another thread or process of this machine holds this lock."""
        path = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise faults.of_file(error, path) from error
        try:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
