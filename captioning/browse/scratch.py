"""The folder of the browser's copies of captions: it goes with its process, however that ends.

A process holds a lock on its folder, and the kernel drops the lock when the process dies. So a folder that can be
locked has no owner any more (killed, or the power went), and the next browser to start removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

PREFIX = "holism-browse-"


class Scratch:
    """A folder in the temporary folder, removed by `close`, at exit, or by the next browser."""

    def __init__(self) -> None:
        _remove_ownerless()
        self.folder, lock = _claim()
        self._remove = weakref.finalize(self, _release, self.folder, lock)

    def new(self) -> Path:
        """An empty folder of its own inside."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def close(self) -> None:
        """Remove everything; a second call does nothing."""
        self._remove()


def _claim() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        with suppress(FileNotFoundError):  # another browser that starts now took it for an ownerless one
            lock = _open(folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _remove_ownerless() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = _open(folder)
        except OSError:  # of another user, or gone meanwhile
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # its browser is running
            os.close(lock)
        else:
            _release(folder, lock)


def _release(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
