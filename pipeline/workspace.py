"""A workspace: one folder per stage, the manifests of what was made, and a lock so that two runs never mix.

WS/{ingest,caption,curate,train,evaluate}/...   WS/manifests/STAGE-FINGERPRINT.json   WS/.lock
"""

from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from pipeline import faults, lock
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest
from pipeline.storage import Location


class Workspace:
    """Where the stages of one project keep what they make; any fsspec location."""

    def __init__(self, root: str | Location) -> None:
        self.root = Location.of(root)
        if self.root.is_local:
            _refuse_impossible(self.root)

    def folder(self, stage: str) -> Location:
        """The stage's own folder."""
        return self.root / stage

    def manifest(self, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest of this very result, if it was made."""
        location = self._manifest_location(stage, fingerprint)
        return self._load(location) if location.exists() else None

    def manifests(self, stage: str) -> list[Manifest]:
        """All results of a stage, newest first."""
        manifests = [
            self._load(file)
            for file, _ in (self.root / "manifests").files(".json")
            if file.name.startswith(f"{stage}-")
        ]
        return sorted(manifests, key=lambda manifest: manifest.created_at, reverse=True)

    def save(self, manifest: Manifest) -> None:
        """Publish a result. Its store is written relative to the workspace, so that a workspace can be moved."""
        relative = replace(manifest, store=manifest.store.removeprefix(f"{self.root}/"))
        self._manifest_location(manifest.stage, manifest.fingerprint).write(relative.to_bytes())

    def _load(self, location: Location) -> Manifest:
        manifest = Manifest.load(location)
        return replace(manifest, store=f"{self.root}/{manifest.store}")

    def _manifest_location(self, stage: str, fingerprint: str) -> Location:
        return self.root / "manifests" / f"{stage}-{fingerprint}.json"

    def lock(self, *, wait: bool = False) -> AbstractContextManager[None]:
        """Hold the workspace. A living holder is named in the error (or waited for); a dead one is taken over."""
        return lock.hold(self.root / ".lock", wait=wait)

    def require_store(self) -> None:
        """Raises `StoreError` or `ConfigError` if the store it is to lie in is not there, or does not answer."""
        if not self.root.is_local:
            self.root.require_bucket()


def _refuse_impossible(root: Location) -> None:
    """A path of this machine at which no folder can ever be."""
    for place in map(Location, (root.uri, *map(str, Path(root.uri).parents))):
        try:
            mode = os.stat(place.uri).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ConfigError(f"the workspace {root} cannot be used: {faults.of_file(error, place)}") from error
        if not stat.S_ISDIR(mode):
            what = "is a file" if place == root else f"lies below {place}, which is no folder"
            raise ConfigError(f"the workspace {root} {what}; name a folder")
        return
