"""Which files of an index may go: an index that is open anywhere stays, of the others those that were used last."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.storage import TEMPORARY, Location

KEPT = 4  # indexes that nobody has open, beside the newest: configurations that are used in turn


class InUse:
    """Marks an order's file as used now, for as long as this object or its process lives."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with suppress(OSError):  # a file system without locks, or one that cannot be written
            fcntl.flock(self._file, fcntl.LOCK_SH)
            os.utime(self._file)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def remove_old(folder: Location, newest: Location) -> None:
    """Removes indexes that nobody uses, but the last few, and the pieces that no index has any more.

    Called by the one process that builds. What a killed build left half goes too.
    """
    from training.index.piece import open_arrow_file

    here = Path(folder.uri)
    orders = sorted(here.glob("order-*.arrow"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    kept, unused = set(), 0
    for path in orders:
        is_old = path.name != newest.name and not _is_in_use(path)
        unused += is_old
        try:
            pieces = open_arrow_file(str(path))[1]["pieces"]
        except StoreError:
            pieces = None
        if pieces is None or (is_old and unused > KEPT):
            path.unlink(missing_ok=True)
        else:
            beside = {path.name.replace("order-", "copies-"), counts_file(Location(str(path))).name}
            kept |= {*beside, *pieces}
    for path in here.iterdir():
        is_file_of_ours = path.name.startswith(("piece-", "copies-", "counts-")) and path.name not in kept
        if is_file_of_ours or path.name.startswith(TEMPORARY):
            path.unlink(missing_ok=True)


def counts_file(order: Location) -> Location:
    """How often tokens occur, which belongs to one order (`training.index.frequencies`)."""
    return order.parent / order.name.replace("order-", "counts-")


def _is_in_use(path: Path) -> bool:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is; or there are no locks here, and nobody can tell
        return True
    finally:
        os.close(file)
    return False
