"""Packing single images into shards: read, inspect, write the tar, commit the rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.commits import CommitLog, Part
from pipeline.errors import StoreError
from pipeline.identity import bag
from pipeline.ingest.inspect import Inspector, Picture, Reference, inspect_reference
from pipeline.ingest.placement import Batch, part_name, plan
from pipeline.ingest.shards import Entry, image_row, pack, reasons
from pipeline.ingest.source import Source
from pipeline.ingest.tally import Tally
from pipeline.progress import Progress
from pipeline.schemas import IMAGES, encode, table
from pipeline.storage import Location

TARS_FOLDER = "shards"


def pack_source(
    source: Source,
    store: Location,
    *,
    shard_images: int,
    shard_bytes: int,
    resize: int | None,
    workers: int,
    retry_failed: bool,
) -> list[Part]:
    """Bring the store up to date with the source; returns the parts that hold exactly what it lists."""
    log = CommitLog(store)
    items = source.items()
    todo = plan(source, items, log, shard_images=shard_images, shard_bytes=shard_bytes, retry_failed=retry_failed)
    parts = list(todo.kept)
    if not todo.batches:
        return parts
    waiting = sum(len(batch.items) for batch in todo.batches)
    progress = Progress("ingest", len(items), "images", done=len(items) - waiting)
    work = partial(inspect_reference, resize=resize, keep=True)
    with Inspector(workers, work) as inspector:
        fetched = source.fetch([batch.items for batch in todo.batches])
        for batch, references in zip(todo.batches, fetched, strict=True):
            parts.append(_pack_batch(source, batch, references, log, inspector, progress))
    progress.close()
    return sorted(parts, key=lambda part: part.name)


def _pack_batch(
    source: Source,
    batch: Batch,
    references: Sequence[Reference | str],
    log: CommitLog,
    inspector: Inspector,
    progress: Progress,
) -> Part:
    started = time.monotonic()
    pictures = _inspect(references, inspector, progress)
    rows = [dict(row) for row in batch.rows]
    tar = log.folder / TARS_FOLDER / f"{batch.shard}.tar"
    entries = _entries_of(tar, rows)
    described = [source.describe(item) for item in batch.items]
    for key, picture, told in zip(batch.keys, pictures, described, strict=True):
        if picture.data is not None:
            entries.append(Entry(key, str(picture.format), picture.data, told.alt_text))
    data, offsets = pack(entries)
    moved = [row["key"] for row in rows if row["status"] == "ok" and offsets[row["key"]] != row["offset"]]
    if moved:
        raise StoreError(f"{tar} was not written by this version: image {moved[0]} would move; use a new workspace")
    for key, item, picture, told in zip(batch.keys, batch.items, pictures, described, strict=True):
        row = image_row(
            batch.shard, key, item.name, picture, alt_text=told.alt_text, url=told.url, offset=offsets.get(key)
        )
        rows.append(row)
    tar.write(data)  # before the rows: offsets of an earlier run stay true in the longer tar
    left_out, mended = Tally(), Tally()
    for told in (*described, *(source.describe(item) for item in batch.kept_items)):
        left_out.update([told.left_out])
        mended.update([told.mended])
    detail = {
        "stamps": batch.stamps,
        "tar": f"{TARS_FOLDER}/{tar.name}",
        "tar_bytes": len(data),
        "left_out": left_out.to_json(),
        "mended": mended.to_json(),
    }
    return commit_rows(log, batch.shard, rows, started, detail)


def _inspect(references: Sequence[Reference | str], inspector: Inspector, progress: Progress) -> list[Picture]:
    """Pictures in the order of `references`; a reason instead of a reference becomes an error."""
    found = inspector([reference for reference in references if isinstance(reference, Reference)])
    pictures = []
    for reference in references:
        pictures.append(Picture(reference) if isinstance(reference, str) else next(found))
        progress.update()
    return pictures


def _entries_of(tar: Location, rows: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """What the tar of an earlier run holds, in its order."""
    usable = sorted((row for row in rows if row["status"] == "ok"), key=lambda row: row["offset"])
    return [
        Entry(row["key"], row["format"], Reference(tar.uri, row["offset"], row["size"]).read(), row["alt_text"])
        for row in usable
    ]


def commit_rows(
    log: CommitLog, shard: str, rows: Sequence[Mapping[str, Any]], started: float, detail: Mapping[str, Any]
) -> Part:
    """Commit the images table of one shard, in the order of its keys."""
    ordered = sorted(rows, key=lambda row: row["key"])
    return log.commit(
        part_name(shard),
        encode(table(IMAGES, ordered), IMAGES),
        content=bag(ordered),
        rows=len(ordered),
        errors=sum(row["status"] == "error" for row in ordered),
        seconds=time.monotonic() - started,
        detail={"shard": shard, "reasons": reasons(ordered), **detail},
    )
