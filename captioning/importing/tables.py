"""Imported captions: a table becomes captions of the store, as if a model had written them.

A table is treated as a model whose answers are there already. Its rows enter as parts, one a shard, under cells that
are named by the table's content and by what the captions look at; so browsing and training need to know nothing of
tables. A table that did not change is not read again; one that did is another revision, whose rows replace the old
ones in the manifest, and a caption that stayed as it was keeps its caption_id.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import pyarrow as pa

from captioning import store
from captioning.config import TableConfig
from captioning.importing import IMPORTED
from captioning.importing.rows import KIND, Counts, open_rows
from captioning.store import Shard
from pipeline import contents, schemas
from pipeline.commits import CommitLog, Part
from pipeline.config import semantic
from pipeline.errors import InputError
from pipeline.identity import ID_LENGTH, canonical, caption_id, digest
from pipeline.ingest.formats import kind_of
from pipeline.ingest.source import stamp_of
from pipeline.ingest.tables import is_shown
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.stage import Outcome
from pipeline.storage import Location
from pipeline.summary import counted

READ_WHOLE = 1 << 28  # bytes; of a bigger file size and time of change count, as they do for images
ENDS = {"word": "list", "phrase": "phrase"}
Row = dict[str, Any]


@dataclass(frozen=True)
class ImportedTable:
    """A table as it is now: its files, and their digest as its revision."""

    config: TableConfig
    files: tuple[Location, ...]
    revision: str

    @classmethod
    def find(cls, config: TableConfig) -> ImportedTable:
        """Look up its files. Raises `InputError` if there is none."""
        files = _files(config)
        if not files:
            raise InputError(f"caption.tables: table {config.name!r}: no file is at {config.path}")
        return cls(config, files, digest([[file.name, _file_digest(file)] for file in files]))

    @property
    def model(self) -> str:
        """What the captions table calls it."""
        return f"table:{self.config.name}"

    @property
    def id(self) -> str:
        """Of its content and of how it is read, wherever its files lie."""
        return digest([self.revision, {**semantic(self.config), "path": None}])

    def part_name(self, shard: Shard) -> str:
        """Where its captions of a shard go."""
        return f"captions/{shard.name}-{shard.digest[:8]}/table-{self.id[:16]}.parquet"

    def cells(self, kinds: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, Any]]:
        """What a manifest says of its cells, by id: one for each (perspective, granularity, level)."""
        return {
            digest([self.id, *kind]): {
                "prompt": self.model,
                "perspective": kind[0],
                "granularity": kind[1],
                "level": kind[2],
                "ends": ENDS.get(kind[1], "sentence"),
                "model": self.model,
                "revision": self.revision,
                "sampling": canonical({}),
                "sample_index": 0,
            }
            for kind in kinds
        }


@dataclass(frozen=True)
class Imported:
    """The parts of all tables, and how many of their captions are new."""

    parts: tuple[Part, ...]
    new: int


def external(configs: Sequence[TableConfig]) -> dict[str, str]:
    """Digests of what the tables hold."""
    return {f"table:{config.name}": ImportedTable.find(config).revision for config in configs}


def import_captions(configs: Sequence[TableConfig], ingest: Manifest, folder: Location) -> Imported:
    """Write what the store lacks of these tables. Nothing is read of a table that is there for all shards."""
    if not configs:
        return Imported((), 0)
    log, shards = CommitLog(folder), store.shards(ingest)
    committed, parts, new = log.parts(), list[Part](), 0
    for table in map(ImportedTable.find, configs):
        names = {shard: table.part_name(shard) for shard in shards}
        missing = [shard for shard, name in names.items() if name not in committed]
        made = list(_write(table, missing, shards, log)) if missing else []
        new += sum(part.rows for part in made)
        parts += made + [committed[name] for name in names.values() if name in committed]
    return Imported(tuple(sorted(parts, key=lambda part: part.name)), new)


def preview(configs: Sequence[TableConfig], ingest: Manifest, folder: Location) -> list[str]:
    """Lines for `holism plan`."""
    if not configs:
        return []
    committed, shards = CommitLog(folder).parts(), store.shards(ingest)
    lines = []
    for table in map(ImportedTable.find, configs):
        missing = sum(table.part_name(shard) not in committed for shard in shards)
        todo = f"captions of {counted(missing, 'shard')} to import" if missing else "nothing is missing"
        lines.append(f"{table.model}: {todo}")
    return lines


def _write(table: ImportedTable, missing: Sequence[Shard], shards: Sequence[Shard], log: CommitLog) -> Iterator[Part]:
    progress = Progress(f"caption: {table.model}", len(missing), "shards")
    images = [Location.of(shard.images) for shard in shards]
    for place, known in zip(images, shards, strict=True):
        contents.check(place, place.read(), known.digest, "ingest")  # DuckDB would not see that it is damaged
    with open_rows(table.config, table.files, images) as rows:
        rows.check()
        counts, cells = rows.counts(), table.cells(rows.kinds())
        left = {shard.name: shard for shard in missing}
        for name, own in groupby(rows.matched(), key=lambda row: row["shard"]):
            if (shard := left.pop(name, None)) is not None:
                yield _commit(table, shard, cells, list(own), counts, log)
                progress.update()
        for shard in left.values():  # nothing is said of these; an empty part tells that it was looked for
            yield _commit(table, shard, cells, [], counts, log)
            progress.update()
    progress.close()


def _commit(
    table: ImportedTable, shard: Shard, cells: Mapping[str, Any], rows: Sequence[Row], counts: Counts, log: CommitLog
) -> Part:
    data = _captions(table, rows)
    said = Counter(data["cell"].to_pylist())
    return log.commit(
        table.part_name(shard),
        schemas.encode(data, schemas.CAPTIONS),
        rows=len(rows),
        cells=sorted(cells),
        detail={
            "shard": shard.name,
            "figures": {cell: {**dict.fromkeys(store.COUNTED, 0), "captions": n} for cell, n in sorted(said.items())},
            "first_error": None,
            "began": round(time.time(), 3),
            "table": {"name": table.config.name, "cells": dict(cells), **vars(counts)},
        },
    )


def _captions(table: ImportedTable, rows: Sequence[Row]) -> pa.Table:
    """Rows of the captions table, column by column: millions of rows have most of their columns in common."""
    kinds = [(row["perspective"], row["granularity"], row["level"]) for row in rows]
    cells = {kind: digest([table.id, *kind]) for kind in set(kinds)}
    said = [canonical([*kind, row["text"]]) for kind, row in zip(kinds, rows, strict=True)]
    own: dict[str, Sequence[Any]] = {
        **{name: [row[name] for row in rows] for name in ("shard", "key", "image_id", "text", *KIND)},
        "caption_id": [
            caption_id(row["image_id"], text, table.model, "", {}, None) for row, text in zip(rows, said, strict=True)
        ],
        "cell": [cells[kind] for kind in kinds],
    }
    common = {
        "prompt_id": table.model,
        "model": table.model,
        "revision": table.revision,
        "engine": IMPORTED,
        "sampling": canonical({}),
        "sample_index": 0,
        "status": "ok",
        "created_at": datetime.now(UTC),
    }
    columns = []
    for field in schemas.CAPTIONS:
        if field.name in own:
            columns.append(pa.array(own[field.name], pa.string()).cast(field.type))
        else:
            columns.append(
                pa.repeat(pa.scalar(common.get(field.name), _plain(field.type)), len(rows)).cast(field.type)
            )
    return pa.table(columns, schema=schemas.CAPTIONS)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def add(outcome: Outcome, imported: Imported) -> Outcome:
    """What models wrote, and the captions of tables beside it."""
    if not imported.parts:
        return outcome
    in_time = sorted(imported.parts, key=lambda part: part.detail["began"])  # the last knows of the newest images
    abouts = {part.detail["table"]["name"]: part.detail["table"] for part in in_time}
    cells = {cell: about for table in abouts.values() for cell, about in table["cells"].items()}
    counts = {**outcome.counts, "new_captions": outcome.counts["new_captions"] + imported.new}
    counts["captions"] += sum(part.rows for part in imported.parts)
    perspectives = {name: dict(count) for name, count in counts["perspectives"].items()}
    for part in imported.parts:
        for cell, figures in part.detail["figures"].items():
            own = perspectives.setdefault(cells[cell]["perspective"], {"captions": 0, "errors": 0})
            own["captions"] += figures["captions"]
    return replace(
        outcome,
        parts=tuple(sorted([*outcome.parts, *imported.parts], key=lambda part: part.name)),
        counts={**counts, "perspectives": perspectives},
        detail={**outcome.detail, "cells": {**outcome.detail["cells"], **cells}},
        warnings=[*outcome.warnings, *(text for table in abouts.values() for text in _warnings(table))],
    )


def _warnings(table: Mapping[str, Any]) -> list[str]:
    said = f"table {table['name']!r}"
    lost = table["rows"] - table["matched"]
    warnings = []
    if lost:
        examples = f": {table['unmatched']}" if table.get("unmatched") else ""  # parts of earlier versions have none
        warnings.append(
            f"{said}: {counted(lost, 'caption matches', 'captions match')} no image of this workspace "
            f"(of {table['rows']:,}){examples}"
        )
    if table["empty"]:
        empty = counted(table["empty"], "caption is empty and was", "captions are empty and were")
        warnings.append(f"{said}: {empty} left out")
    return [*warnings, *table.get("faults", ())]


def _files(config: TableConfig) -> tuple[Location, ...]:
    """The files of a path, a folder or a glob, sorted by name: those of the table's format, if any has its suffix.

    A path that is there is no glob, whatever its name.
    """
    place = Location.of(config.path)
    if place.is_dir():
        files = [file for file, _ in place.entries(recursive=True)]
    elif place.exists():
        return (place,)
    else:
        files = [file for file, is_folder in place.glob() if not is_folder]
    files = [file for file in files if is_shown(file, place)]
    return tuple([file for file in files if kind_of(file.name) == f".{config.kind}"] or files)


def _file_digest(file: Location) -> str:
    info = file.info()
    if int(info.get("size") or 0) > READ_WHOLE:
        return stamp_of(info)
    return hashlib.sha256(file.read()).hexdigest()[:ID_LENGTH]
