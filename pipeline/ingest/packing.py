"""Packing single images into shards: read, inspect, write the tar, commit the rows."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.commits import CommitLog, Part
from pipeline.errors import StoreError
from pipeline.identity import bag, image_id
from pipeline.ingest.inspect import Inspector, Picture, Reference, inspect_reference
from pipeline.ingest.placement import ShardTask, Stored, part_name, plan
from pipeline.ingest.shards import Entry, image_row, pack, reasons
from pipeline.ingest.source import Item, Source
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
    if not todo.tasks:
        return parts
    waiting = sum(len(task.items) for task in todo.tasks)
    progress = Progress("ingest", len(items), "images", done=len(items) - waiting)
    work = partial(inspect_reference, resize=resize, keep=True)
    with Inspector(workers, work) as inspector:
        wanted = [_pictures_to_fetch(source, task) for task in todo.tasks]
        fetched = source.fetch([list(items.values()) for items in wanted])
        for task, names, references in zip(todo.tasks, wanted, fetched, strict=True):
            pictures = dict(zip(names, _inspect(references, inspector, progress), strict=True))
            parts.append(_pack_shard(source, task, pictures, log))
            progress.update(len(task.items) - len(names))
    progress.close()
    return sorted(parts, key=lambda part: part.name)


def _pictures_to_fetch(source: Source, task: ShardTask) -> dict[str, Item]:
    """One item for each picture that is not stored yet."""
    items: dict[str, Item] = {}
    for key, item in zip(task.keys, task.items, strict=True):
        if key not in task.stored:
            items.setdefault(source.picture(item.name) or key, item)
    return items


def _pack_shard(source: Source, task: ShardTask, fetched: Mapping[str, Picture], log: CommitLog) -> Part:
    started = time.monotonic()
    rows = [dict(row) for row in task.rows]
    tar = log.folder / TARS_FOLDER / f"{task.shard}.tar"
    contents = Contents(rows)
    new, left_out, mended = [], Tally(), Tally()
    for key, item in zip(task.keys, task.items, strict=True):
        stored = task.stored.get(key)
        picture = _from_store(stored) if stored else fetched[source.picture(item.name) or key]
        told = source.describe(item)
        contents.add(key, picture, told.alt_text)
        new.append((key, item, picture, told))
    offsets = contents.write(tar)
    for key, item, picture, told in new:
        row = image_row(
            task.shard, key, item.name, picture, alt_text=told.alt_text, url=told.url, offset=offsets.get(key)
        )
        rows.append(row)
    for told in (*(told for *_, told in new), *(source.describe(item) for item in task.kept_items)):
        left_out.update([told.left_out])
        mended.update([told.mended])
    detail = {
        "stamps": task.stamps,
        "tar": f"{TARS_FOLDER}/{tar.name}",
        "tar_bytes": tar.size(),
        "left_out": left_out.to_json(),
        "mended": mended.to_json(),
    }
    return commit_rows(log, task.shard, rows, started, detail)


class Contents:
    """What goes into a shard's tar: every picture once, under the first key that has it, and that row's alt text.

    `rows` are those of an earlier run, whose pictures stay where they are.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._earlier: list[Mapping[str, Any]] = []  # rows whose keys name pictures in the tar, in its order
        self._added: list[Entry] = []
        self._offsets: dict[str, int] = {}
        self._key_in_tar: dict[str, str] = {}  # by the key of any row
        self._first_key: dict[str, str] = {}  # of those in the tar, by image id
        usable = [row for row in rows if row["status"] == "ok"]
        for row in sorted(usable, key=lambda row: (row["offset"], row["key"])):
            self._offsets[row["key"]] = row["offset"]
            if self._earlier and row["offset"] == self._earlier[-1]["offset"]:
                self._key_in_tar[row["key"]] = self._earlier[-1]["key"]
            else:
                self._earlier.append(row)
                self._name(row["image_id"], row["key"])

    def add(self, key: str, picture: Picture, alt_text: str | None) -> None:
        """Add a picture, if it can be used and is not there under an earlier key: names in the tar never change."""
        if picture.data is None:
            return
        first = self._first_key.get(str(picture.image_id))
        if first is not None and first < key:
            self._key_in_tar[key] = first
        else:
            self._added.append(Entry(key, str(picture.format), picture.data, alt_text))
            self._name(str(picture.image_id), key)

    def write(self, tar: Location) -> dict[str, int]:
        """Write the tar, unless nothing was added; returns the offset of the picture of every row by its key.

        Before the rows: offsets of an earlier run stay true in the longer tar.
        """
        if self._added or not self._earlier:
            data, offsets = pack([*(self._packed(tar, row) for row in self._earlier), *self._added])
            if moved := [key for key, offset in self._offsets.items() if offsets[self._key_in_tar[key]] != offset]:
                raise StoreError(
                    f"{tar} was not written by this version: image {moved[0]} would move; use a new workspace"
                )
            tar.write(data)
        else:
            offsets = self._offsets
        return {key: offsets[name] for key, name in self._key_in_tar.items()}

    def _packed(self, tar: Location, row: Mapping[str, Any]) -> Entry:
        return Entry(row["key"], row["format"], Reference(tar.uri, row["offset"], row["size"]).read(), row["alt_text"])

    def _name(self, image: str, key: str) -> None:
        self._key_in_tar[key] = key
        self._first_key[image] = min(key, self._first_key.get(image, key))


def _from_store(stored: Stored) -> Picture:
    """The picture of another row."""
    row = stored.row
    try:
        data = Reference(stored.tar.uri, row["offset"], row["size"]).read()
    except OSError as error:
        return Picture(f"cannot be read from {stored.tar.name}: {error.strerror or error}")
    if image_id(data) != row["image_id"]:
        return Picture(f"is damaged in {stored.tar.name}; run ingest with --retry-failed")
    return Picture(**{name: row[name] for name in Picture.__slots__ if name not in ("error", "data")}, data=data)


def _inspect(references: Sequence[Reference | str], inspector: Inspector, progress: Progress) -> list[Picture]:
    """Pictures in the order of `references`; a reason instead of a reference becomes an error."""
    inspected = inspector([reference for reference in references if isinstance(reference, Reference)])
    pictures = []
    for reference in references:
        pictures.append(Picture(reference) if isinstance(reference, str) else next(inspected))
        progress.update()
    return pictures


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
