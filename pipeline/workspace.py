"""A workspace: one folder per stage, the manifests of what was made, and a lock so that two runs never mix.

WS/{ingest,caption,curate,train,evaluate}/...   WS/manifests/STAGE-FINGERPRINT.json   WS/.lock
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import ConfigError, WorkspaceLockedError
from pipeline.manifest import Manifest
from pipeline.storage import Location

HEARTBEAT_SECONDS = 20.0  # object stores only: a holder that was silent for six beats is dead
SETTLE_SECONDS = 0.5  # object stores only: how long two that start at once may overlap


class Workspace:
    """Where the stages of one project keep what they make; any fsspec location."""

    def __init__(self, root: str | Location) -> None:
        self.root = Location.of(root)
        if self.root.is_local and os.path.exists(self.root.uri) and not os.path.isdir(self.root.uri):
            raise ConfigError(f"the workspace {self.root} is a file; name a folder")

    def folder(self, stage: str) -> Location:
        """The stage's own folder."""
        return self.root / stage

    def manifest(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest of this very result, if it was made."""
        location = self._manifest_location(stage, fingerprint)
        return self._load(location) if location.exists() else None

    def manifests(self, stage: str) -> list[Manifest]:
        """All results of a stage, newest first."""
        found = [
            self._load(file)
            for file, _ in (self.root / "manifests").files(".json")
            if file.name.startswith(f"{stage}-")
        ]
        return sorted(found, key=lambda manifest: manifest.created_at, reverse=True)

    def save(self, manifest: Manifest) -> None:
        """Publish a result. Its store is written relative to the workspace, so that a workspace can be moved."""
        relative = replace(manifest, store=manifest.store.removeprefix(f"{self.root}/"))
        self._manifest_location(manifest.stage, manifest.fingerprint).write(relative.to_bytes())

    def _load(self, location: Location) -> Manifest:
        manifest = Manifest.load(location)
        return replace(manifest, store=f"{self.root}/{manifest.store}")

    def _manifest_location(self, stage: str, fingerprint: str) -> Location:
        return self.root / "manifests" / f"{stage}-{fingerprint}.json"

    @contextmanager
    def lock(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the workspace. A living holder is named in the error (or waited for); a dead one is taken over."""
        hold = _hold_local if self.root.is_local else _hold_remote
        with hold(self.root / ".lock", wait):
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
    """The kernel drops an flock when its holder dies, however it dies, so there is no stale lock to guess at."""
    lock.parent.make_folder()
    with open(lock.uri, "a+", encoding="utf8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            handle.seek(0)
            raise _complain(lock, _parse(handle.read())) from error
        handle.truncate(0)
        handle.write(json.dumps(_holder()))
        handle.flush()
        try:
            yield
        finally:
            handle.truncate(0)


@contextmanager
def _hold_remote(lock: Location, wait: bool) -> Iterator[None]:
    """Object stores have no flock: the holder renews a time stamp, and who falls silent has lost the lock.

    Of two that claim it at once the later write stands, so a claim is read back before it counts.
    """
    me, done = {**_holder(), "token": secrets.token_hex(8)}, threading.Event()

    def claim() -> None:
        lock.write(json.dumps({**me, "beat": time.time()}).encode())

    def mine() -> bool:
        return _read(lock).get("token") == me["token"]

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS) and mine():
            claim()

    while not mine():
        holder = _read(lock)
        if time.time() - float(holder.get("beat", 0)) > 6 * HEARTBEAT_SECONDS:
            claim()
            time.sleep(SETTLE_SECONDS)
        elif wait:
            time.sleep(HEARTBEAT_SECONDS / 4)
        else:
            raise _complain(lock, holder)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if mine():
            lock.remove()


def _read(lock: Location) -> dict[str, Any]:
    try:
        return _parse(lock.read().decode(errors="replace"))
    except FileNotFoundError:
        return {}


def _parse(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}
