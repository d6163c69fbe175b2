"""Cores of their own for engines on a CPU.

An actor is an engine's thread and a few others that wait most of the time, all under one interpreter's lock. If one of
the others wakes up on a core where another actor's engine runs, it waits there for its turn with the lock in hand, and
its own engine stands still. With each actor on cores of its own that cannot happen.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

_held: list[IO[str]] = []  # locks of this process; the kernel drops them when it ends


def keep_to_own(count: int) -> tuple[int, ...]:
    """Keep this process to `count` cores that no other actor of this machine has taken; none if there are too few."""
    if not hasattr(os, "sched_setaffinity"):
        return ()
    folder = Path(tempfile.gettempdir(), f"holism-cores-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    taken: list[IO[str]] = []
    cores: list[int] = []
    for core in sorted(os.sched_getaffinity(0)):
        lock: IO[str] = open(folder / str(core), "w", encoding="utf8")  # noqa: SIM115  # held while this process lives
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        taken.append(lock)
        cores.append(core)
        if len(cores) == count:
            _held.extend(taken)
            for thread in os.listdir("/proc/self/task"):  # affinity is of threads; new ones have their maker's
                os.sched_setaffinity(int(thread), cores)
            return tuple(cores)
    for lock in taken:
        lock.close()
    return ()
