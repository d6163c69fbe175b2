"""What the browser shows: results of a workspace, loaded into a DuckDB database.

Captions lie in very many small Parquet parts. Reading them once into DuckDB's own compressed tables (on disk, in a
temporary folder) is what makes every page quick afterwards; when a manifest changes they are read again.
"""

from __future__ import annotations

import shutil
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from captioning.browse.results import STAGES, Find, Results
from captioning.browse.scratch import Scratch
from captioning.rounds import ROUND
from pipeline.errors import MissingInputError, StoreError
from pipeline.ingest import shard_uris
from pipeline.ingest.source import stamp_of
from pipeline.manifest import Manifest
from pipeline.storage import filesystem
from pipeline.workspace import Workspace

SCHEMA = Path(__file__).with_name("schema.sql")
STALE_SECONDS = 2.0  # how often manifests are looked at
READERS = 4  # threads


@dataclass
class Snapshot:
    """One state of a workspace: the manifests and the database made of them, which goes with the last user."""

    manifests: Mapping[str, Manifest]
    shards: Mapping[str, str]
    connection: Any
    seconds: float
    notes: tuple[str, ...]

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

    def __init__(self, workspace: Workspace, find: Find) -> None:
        """`find` says which results to show."""
        self.workspace = workspace
        self._find = find
        self._scratch = Scratch()
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._stamp: object = None
        self._looked = 0.0

    def current(self) -> Snapshot:
        """The snapshot of the results to show, loaded again if manifests changed.

        Raises `MissingInputError` if nothing was ingested yet, `StoreError` if a part is missing or damaged.
        """
        with self._lock:
            now = time.monotonic()
            if self._snapshot is None or now - self._looked > STALE_SECONDS:
                stamp = self._read_stamp()
                if self._snapshot is None or stamp != self._stamp:
                    self._snapshot, self._stamp = self._load(self._find()), stamp
                self._looked = time.monotonic()
            return self._snapshot

    def close(self) -> None:
        """Remove the copies on disk."""
        with self._lock:
            self._snapshot = None
            self._scratch.close()

    def _read_stamp(self) -> object:
        files = (self.workspace.root / "manifests").entries()
        shown = tuple(f"{stage}-" for stage in STAGES)
        return [(file.uri, stamp_of(info)) for file, info in files if file.name.startswith(shown)]

    def _load(self, results: Results) -> Snapshot:
        manifests = results.manifests
        if "ingest" not in manifests:
            raise MissingInputError(
                f"there is nothing to browse in the workspace {self.workspace.root}. {' '.join(results.notes)}"
            )
        started = time.monotonic()
        folder = self._scratch.new()
        try:
            connection = duckdb.connect(folder / "catalog.duckdb")
            self._fill(connection, manifests)
            snapshot = Snapshot(
                manifests, shard_uris(manifests["ingest"]), connection, time.monotonic() - started, results.notes
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        weakref.finalize(snapshot, shutil.rmtree, folder, ignore_errors=True)
        return snapshot

    def _fill(self, connection: Any, manifests: Mapping[str, Manifest]) -> None:
        captions = self._captions(manifests)
        with ThreadPoolExecutor(READERS) as threads:  # DuckDB would not see that a part is damaged
            for manifest in [
                manifests["ingest"],
                *captions,
                *([manifests["curate"]] if "curate" in manifests else []),
            ]:
                list(threads.map(manifest.check, manifest.parts))
        sources = {
            "images_parts": _uris(manifests["ingest"], "images/"),
            "captions_parts": [uri for manifest in captions for uri in _uris(manifest, "captions/")],
            "verdicts_parts": _uris(manifests.get("curate"), "verdicts/"),
            "bundles_parts": _uris(manifests.get("curate"), "bundles/"),
        }
        cells = sorted({cell for manifest in captions for cell in manifest.detail["cells"]})
        try:
            _register_filesystems(connection, manifests.values())
            with ThreadPoolExecutor(1) as thread:  # in the main thread DuckDB would swallow what Ctrl-C raises
                created = thread.submit(_create, connection, sources, cells)
                try:
                    created.result()
                except BaseException:
                    connection.interrupt()
                    raise
        except duckdb.Error as error:
            message = str(error).splitlines()[0]
            raise StoreError(f"the parts of {self.workspace.root} cannot be read: {message}") from error

    def _captions(self, manifests: Mapping[str, Manifest]) -> list[Manifest]:
        """The caption stage's manifest, and those of the regeneration rounds that curation asked for."""
        if "caption" not in manifests:
            return []
        caption, curate = manifests["caption"], manifests.get("curate")
        if curate is None or curate.inputs.get("caption") != caption.digest:
            return [caption]
        rounds = [self.workspace.manifest(ROUND, fingerprint) for fingerprint in curate.detail.get("rounds", ())]
        return [caption, *(manifest for manifest in rounds if manifest is not None)]


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
