"""WebDataset tars as shards: indexed where they are, decoded once, and never copied."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.commits import CommitLog, Part
from pipeline.errors import InputError
from pipeline.ingest.config import WebdatasetSource
from pipeline.ingest.inspect import SUFFIXES, Inspector, Picture, Reference, inspect_reference
from pipeline.ingest.packing import commit_rows
from pipeline.ingest.placement import holds
from pipeline.ingest.shards import image_row
from pipeline.ingest.source import stamp_of
from pipeline.ingest.tars import Index, scan
from pipeline.progress import Progress
from pipeline.schemas import IMAGES, read
from pipeline.storage import Location

KIB = 1024
Row = dict[str, Any]


@dataclass(frozen=True)
class Tar:
    """A tar as it was found."""

    location: Location
    stamp: str
    size: int


def find_tars(source: WebdatasetSource) -> list[Tar]:
    """The tars that a path, a folder, a glob or a list of these names, sorted; raises `InputError` if one has none."""
    paths = [source.path] if isinstance(source.path, str) else list(source.path)
    if not paths:
        raise InputError("ingest.source.path is an empty list; expected tars, folders of tars or globs")
    found = {tar for path in paths for tar in _expand(path)}
    tars = []
    for location in sorted(found):
        info = location.info()
        stamp = stamp_of({**info, "mtime_ns": info.get("mtime")})
        tars.append(Tar(location, stamp, int(info.get("size") or 0)))
    return tars


def _expand(path: str) -> list[Location]:
    location = Location.of(path)
    if location.is_dir():
        tars = [file for file, _ in location.files(".tar", recursive=True)]
        if not tars:
            raise InputError(f"the folder {location} holds no files that end in .tar; expected WebDataset tars")
        return tars
    if location.exists():
        return [location]
    if not set(path) & set("*?["):
        raise InputError(f"the tar {location} is not there; expected a tar, a folder of tars or a glob")
    tars = location.glob()
    if not tars:
        raise InputError(f"the glob {location} matches no file; expected WebDataset tars")
    return tars


def index_tars(tars: Sequence[Tar], store: Location, *, workers: int, retry_failed: bool) -> list[Part]:
    """Bring the store up to date with the tars; returns one part for each, in the order of the tars.

    A tar that has the size and time of an earlier run is not read again, unless failed rows are to be retried and it
    has some, or pictures in it are no longer what they were. One that was only touched keeps its name; one with other
    images gets a new one, since manifests of earlier runs still name the old.
    """
    log = CommitLog(store)
    earlier: dict[str, list[Part]] = defaultdict(list)
    for part in sorted(log.parts(verify=retry_failed).values(), key=lambda part: part.name):
        earlier[part.detail["tar"]].append(part)
    names = {part.detail["shard"] for parts in earlier.values() for part in parts}
    done: dict[Tar, Part] = {}
    for tar in tars:
        same = [part for part in earlier[tar.location.uri] if part.detail["stamp"] == tar.stamp]
        if same and not (retry_failed and (same[-1].errors or not _is_intact(tar, same[-1], log))):
            done[tar] = same[-1]
    waiting = [tar for tar in tars if tar not in done]
    if not waiting:
        return list(done.values())
    total = sum(tar.size // KIB for tar in tars)
    progress = Progress("ingest", total, "KiB", done=total - sum(tar.size // KIB for tar in waiting))
    with Inspector(workers, partial(inspect_reference, keep=False)) as inspector:
        for tar in waiting:
            started = time.monotonic()
            index, rows = _index(tar, inspector, progress)
            shard = _name(tar, rows, earlier[tar.location.uri], names, log)
            names.add(shard)
            detail = {
                "tar": tar.location.uri,
                "stamp": tar.stamp,
                "damage": index.damage,
                "unreadable_texts": index.unreadable_texts,
            }
            done[tar] = commit_rows(log, shard, [{**row, "shard": shard} for row in rows], started, detail)
    progress.close()
    return [done[tar] for tar in tars]


def _index(tar: Tar, inspector: Inspector, progress: Progress) -> tuple[Index, list[Row]]:
    """The rows of a tar, without the name of the shard."""
    index = scan(tar.location)
    if not index.samples:
        others = ", ".join(sorted(index.others)) or "none that are used"
        raise InputError(f"{tar.location} holds no images (suffixes: {others}); expected {' '.join(SUFFIXES)}")
    whole = [sample for sample in index.samples if not sample.cut]
    pictures = inspector([Reference(tar.location.uri, sample.offset, sample.size) for sample in whole])
    rows, counted = [], 0
    for sample in index.samples:
        picture = Picture("the tar ends inside this image") if sample.cut else next(pictures)
        rows.append(
            image_row(
                "", sample.key, sample.name, picture, alt_text=sample.alt_text, url=sample.url, offset=sample.offset
            )
        )
        step = min((sample.offset + sample.size) // KIB, tar.size // KIB) - counted
        progress.update(step, tar.location.name)
        counted += step
    progress.update(tar.size // KIB - counted)
    return index, rows


def _is_intact(tar: Tar, part: Part, log: CommitLog) -> bool:
    rows = read(log.folder / part.name, IMAGES, ["status", "offset", "size", "image_id"]).to_pylist()
    return holds(tar.location, rows, verify=True)


def _name(tar: Tar, rows: Sequence[Row], earlier: Sequence[Part], names: set[str], log: CommitLog) -> str:
    ordered = sorted(rows, key=lambda row: row["key"])
    for part in earlier:
        shard = part.detail["shard"]
        retried = part.detail["stamp"] == tar.stamp
        if retried or read(log.folder / part.name, IMAGES).to_pylist() == [{**row, "shard": shard} for row in ordered]:
            return str(shard)
    stem = tar.location.stem
    candidates = [stem, f"{tar.location.parent.name}-{stem}", *(f"{stem}-{number}" for number in range(2, 10_000))]
    return next(name for name in candidates if name not in names)
