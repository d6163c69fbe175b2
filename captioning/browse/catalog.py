"""What the browser shows: the newest results of a workspace, loaded into a DuckDB database.

Captions lie in very many small Parquet parts. Reading them once into DuckDB's own compressed tables (on disk, in a
temporary folder) is what makes every page quick afterwards; when a manifest changes they are read again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from captioning.rounds import ROUND
from pipeline.errors import MissingInputError, StoreError
from pipeline.ingest import shard_uris
from pipeline.manifest import Manifest
from pipeline.storage import filesystem
from pipeline.workspace import Workspace

SCHEMA = Path(__file__).with_name("schema.sql")
STALE_SECONDS = 2.0  # how often manifests are looked at
STAGES = ("ingest", "caption", "curate")


@dataclass
class Snapshot:
    """One state of a workspace: the manifests and the database made of them."""

    manifests: Mapping[str, Manifest]
    shards: Mapping[str, str]
    connection: Any
    seconds: float
    notes: tuple[str, ...]
    _folder: TemporaryDirectory[str] = field(repr=False)  # lives as long as the snapshot is used

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Run a query; every call has a cursor of its own, so threads do not meet."""
        cursor = self.connection.cursor().execute(sql, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> dict[str, Any]:
        """The only row of a query."""
        return self.rows(sql, parameters)[0]


class Catalog:
    """The current snapshot of a workspace; safe to use from several threads."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._stamp: object = None
        self._looked = 0.0

    def current(self) -> Snapshot:
        """The snapshot of the newest manifests, loaded again if they changed.

        Raises `MissingInputError` if nothing was ingested yet, `StoreError` if a part is missing or damaged.
        """
        with self._lock:
            now = time.monotonic()
            if self._snapshot is None or now - self._looked > STALE_SECONDS:
                stamp = self._read_stamp()
                if self._snapshot is None or stamp != self._stamp:
                    self._snapshot, self._stamp = self._load(), stamp
                self._looked = time.monotonic()
            return self._snapshot

    def _read_stamp(self) -> object:
        files = (self.workspace.root / "manifests").files(".json")
        return [
            (file.uri, size, str(file.info().get("mtime", file.info().get("LastModified")))) for file, size in files
        ]

    def _load(self) -> Snapshot:
        found = {stage: manifests[0] for stage in STAGES if (manifests := self.workspace.manifests(stage))}
        if "ingest" not in found:
            raise MissingInputError(
                f"the workspace {self.workspace.root} has no images to browse yet; run first: holism ingest CONFIG"
            )
        started = time.monotonic()
        folder = TemporaryDirectory(prefix="holism-browse-")
        connection = duckdb.connect(f"{folder.name}/catalog.duckdb")
        sources = {
            "images_parts": _uris(found["ingest"], "images/"),
            "captions_parts": [uri for manifest in self._captions(found) for uri in _uris(manifest, "captions/")],
            "verdicts_parts": _uris(found.get("curate"), "verdicts/"),
            "bundles_parts": _uris(found.get("curate"), "bundles/"),
        }
        cells = sorted({cell for manifest in self._captions(found) for cell in manifest.detail["cells"]})
        try:
            _register_filesystems(connection, found.values())
            _create(connection, sources, cells)
        except duckdb.Error as error:
            folder.cleanup()
            message = str(error).splitlines()[0]
            raise StoreError(f"the parts of {self.workspace.root} cannot be read: {message}") from error
        shards = shard_uris(found["ingest"])
        return Snapshot(found, shards, connection, time.monotonic() - started, _notes(found), folder)

    def _captions(self, found: Mapping[str, Manifest]) -> list[Manifest]:
        """The caption stage's manifest, and those of the further rounds that curation asked for."""
        further = found["curate"].detail.get("rounds", ()) if "curate" in found else ()
        rounds = [self.workspace.manifest(ROUND, fingerprint) for fingerprint in further]
        return [manifest for manifest in (found.get("caption"), *rounds) if manifest is not None]


def _changed(info: Mapping[str, Any]) -> str:
    """When a file was written, in whatever words its file system has for it."""
    return str(next((info[name] for name in ("mtime", "LastModified", "updated", "created") if name in info), ""))


def _uris(manifest: Manifest | None, prefix: str) -> list[str]:
    return [manifest.location(part).uri for part in manifest.select(prefix)] if manifest else []


def _register_filesystems(connection: Any, manifests: Iterable[Manifest]) -> None:
    for protocol in {manifest.store.split("://", 1)[0] for manifest in manifests if "://" in manifest.store}:
        connection.register_filesystem(filesystem(protocol))


def _create(connection: Any, sources: Mapping[str, list[str]], cells: list[str]) -> None:
    """Make the tables of `schema.sql`; a source without parts is an empty table of the same columns."""
    from pipeline import schemas

    connection.execute("CREATE TEMP TABLE cells AS SELECT unnest(?::VARCHAR[]) AS cell", [cells])
    tables = (schemas.IMAGES, schemas.CAPTIONS, schemas.VERDICTS, schemas.BUNDLES)
    for (name, uris), schema in zip(sources.items(), tables, strict=True):
        if uris:
            connection.read_parquet(uris).create_view(name)
        else:
            connection.register(name, schema.empty_table())
    connection.execute(SCHEMA.read_text(encoding="utf8"))


def _notes(found: Mapping[str, Manifest]) -> tuple[str, ...]:
    """What a viewer has to know about how the results belong together."""
    notes = []
    if "caption" not in found:
        notes.append("No captions yet: holism caption CONFIG writes them.")
    elif "curate" not in found:
        notes.append("Captions are not curated yet: holism curate CONFIG judges them.")
    elif found["curate"].inputs.get("caption") != found["caption"].digest:
        notes.append("The verdicts are of an earlier set of captions: holism curate CONFIG brings them up to date.")
    return tuple(notes)
