"""The lock of a workspace: one run at a time.

On a file system of this machine (or one that shares flock) the kernel keeps it: whoever dies, however it dies, has
lost it at once. It belongs to the process that took it alone; children that it forks or starts do not hold it.

On an object store it is a small file with a time stamp, a lease: the holder renews it every `HEARTBEAT_SECONDS`, and
is taken for dead after `BEATS` of them without a renewal. What that promises:
- Of runs that start at once one gets the workspace: the file is created by a conditional write where the store has
  them (S3, Google's store), and is read back before it counts.
- Requests that fail cost nothing as long as one in four comes through. A holder that could not renew its lease in
  time, or finds somebody else's name in the file, stops its run before another can take its place.
What it cannot promise: a holder that is frozen (a suspended machine, a stopped container) past its lease wakes up
without it, and may finish the request it was at, and go on for a moment, until it has looked at the file or the clock.
Parts and manifests are whole files named by content, so that such a moment leaves extra files, and no mixed ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from pipeline import faults
from pipeline.errors import StoreError, WorkspaceLockedError
from pipeline.messages import say
from pipeline.storage import Location

HEARTBEAT_SECONDS = 20.0
BEATS = 6  # of silence after which a holder is dead; it gives up by itself one beat earlier
SETTLE_SECONDS = 0.5  # how long two that start at once may overlap on stores without conditional writes
_held: set[int] = set()  # descriptors of local locks


@contextmanager
def hold(lock: Location, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock. A living holder is named in a `WorkspaceLockedError` (or waited for), a dead one is replaced."""
    with (_hold_local if lock.is_local else _hold_remote)(lock, wait):
        yield


def _holder() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": datetime.now(UTC).isoformat("T", "seconds")}


def _complain(lock: Location, holder: dict[str, Any]) -> WorkspaceLockedError:
    return WorkspaceLockedError(
        f"the workspace {lock.parent} is in use by process {holder.get('pid', '?')} on {holder.get('host', '?')}, "
        f"started {holder.get('started', '?')}; wait for it (--wait), or stop it, or use another workspace"
    )


@contextmanager
def _hold_local(lock: Location, wait: bool) -> Iterator[None]:
    lock.parent.make_folder()
    try:
        descriptor = os.open(lock.uri, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise faults.of_file(error, lock) from error
    _held.add(descriptor)
    owner = os.getpid()
    try:
        _take(descriptor, lock, wait)
        try:
            yield
        finally:
            if os.getpid() == owner:
                _write_name(descriptor, b"")
    finally:
        if os.getpid() == owner:
            _held.discard(descriptor)
            os.close(descriptor)


def _take(descriptor: int, lock: Location, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise _complain(lock, _parse(os.pread(descriptor, 4096, 0))) from error
    except OSError as error:
        raise faults.of_file(error, lock) from error
    _write_name(descriptor, json.dumps(_holder()).encode())


def _write_name(descriptor: int, data: bytes) -> None:
    """For others to read; the lock holds without it, as on a full disk."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, data, 0)


def _leave_locks_to_the_parent() -> None:
    """A forked child shares the descriptor, and flock ends with the last of them: the child closes its own at once."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


@contextmanager
def _hold_remote(lock: Location, wait: bool) -> Iterator[None]:
    lease = _Lease(lock)
    lease.acquire(wait)
    try:
        with lease.kept():
            yield
    except KeyboardInterrupt as error:
        if lease.lost is None:
            raise
        raise WorkspaceLockedError(lease.lost) from error
    finally:
        lease.release()
    if lease.lost is not None:
        raise WorkspaceLockedError(lease.lost)


class _Lease:
    """A lock file on an object store, with the name of who holds it and the time it was last heard of."""

    def __init__(self, lock: Location) -> None:
        self.lock, self.me = lock, {**_holder(), "token": secrets.token_hex(8)}
        self.lost: str | None = None  # why this run had to stop
        self._renewed = 0.0  # when the last renewal that succeeded was begun
        self._done = threading.Event()

    def acquire(self, wait: bool) -> None:
        """Take the lock, or name its holder."""
        while True:
            begun, holder = time.monotonic(), self._read()
            if self._is_mine(holder):
                self._renewed = begun
                return
            if not holder and not self.lock.exists():
                self.lock.create(self._claim())
                time.sleep(SETTLE_SECONDS)
            elif self._is_dead(holder):
                self.lock.write(self._claim())
                time.sleep(SETTLE_SECONDS)
            elif wait:
                time.sleep(HEARTBEAT_SECONDS / 4)
            else:
                raise _complain(self.lock, holder)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the lease while the work goes on, and stop this process's work when it is lost."""
        threads = [threading.Thread(target=work, name="lock", daemon=True) for work in (self._renew, self._watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join(HEARTBEAT_SECONDS)

    def release(self) -> None:
        """Give the lock back; if that fails it is free when the lease ends."""
        try:
            if self._is_mine(self._read()):
                self.lock.remove()
        except (StoreError, OSError) as error:
            say(
                f"holism: warning: the lock {self.lock} could not be removed ({error}); it counts for nothing "
                f"{HEARTBEAT_SECONDS * BEATS:.0f} s from now",
                warning=True,
            )

    def _renew(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            begun = time.monotonic()
            try:
                holder = self._read()
                if holder and not self._is_mine(holder):
                    self.lost = (
                        f"process {holder.get('pid', '?')} on {holder.get('host', '?')} has taken the workspace "
                        f"{self.lock.parent} over, as this run was not heard of for too long; its results so far are "
                        "kept: run the same command again when the other has ended"
                    )
                    return
                self.lock.write(self._claim())
                self._renewed = begun
            except (StoreError, OSError):
                continue  # tried again at the next beat; `_watch` knows how long that may go on

    def _watch(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS / 20):
            silent = time.monotonic() - self._renewed
            if silent > HEARTBEAT_SECONDS * (BEATS - 1):
                self.lost = self.lost or (
                    f"the store of the workspace {self.lock.parent} has not answered for {silent:.0f} s, and another "
                    "run may take the workspace; its results so far are kept: run the same command again"
                )
            if self.lost is not None:
                say(f"holism: the lock of the workspace is lost: {self.lost}", warning=True)
                # Wakes the main thread from whatever it waits for, as Ctrl-C does; jobs of a script ignore that.
                ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None)
                number = signal.SIGTERM if ignored else signal.SIGINT
                signal.pthread_kill(threading.main_thread().ident or 0, number)
                return

    def _claim(self) -> bytes:
        return json.dumps({**self.me, "beat": time.time()}).encode()

    def _is_mine(self, holder: dict[str, Any]) -> bool:
        return holder.get("token") == self.me["token"]

    def _is_dead(self, holder: dict[str, Any]) -> bool:
        """Whether the holder was silent for the length of a lease, and still is: clocks of two machines may differ."""
        if time.time() - float(holder.get("beat", 0)) <= HEARTBEAT_SECONDS * BEATS:
            return False
        if holder:
            say(
                f"holism: process {holder.get('pid', '?')} on {holder.get('host', '?')} holds the workspace and seems "
                f"dead; making sure for {HEARTBEAT_SECONDS * 1.5:.0f} s"
            )
            time.sleep(HEARTBEAT_SECONDS * 1.5)
        return self._read() == holder

    def _read(self) -> dict[str, Any]:
        try:
            return _parse(self.lock.read())
        except FileNotFoundError:
            return {}


def _parse(data: bytes) -> dict[str, Any]:
    try:
        claim = json.loads(data.decode(errors="replace").strip("\0"))
    except ValueError:
        return {}
    return claim if isinstance(claim, dict) else {}
