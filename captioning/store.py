"""The caption store: what is committed, what is missing, and how a manifest's captions are read.

Captions are append-only and shared by all configurations. A part holds the rows of some cells for a range of one
shard's images; what is missing is found range by range and cell by cell, so chunk sizes may differ between runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioning.cells import Cell, question_of, short_hash
from pipeline import schemas
from pipeline.commits import Part
from pipeline.manifest import Manifest
from pipeline.storage import Location

TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens")
COUNTED = ("captions", "errors", "quarantined", *TOKENS)
QUARANTINED = "quarantined"  # how the error of an image begins that engines keep dying on


@dataclass(frozen=True)
class Shard:
    """References to one shard: its images part, its tar, and how many rows the part has."""

    name: str
    images: str  # URI of the images part
    digest: str
    tar: str
    rows: int
    errors: int  # images that ingest could not read: they get no captions

    @property
    def folder(self) -> str:
        """The folder of its caption parts; another content under the same name has another one."""
        return f"captions/{self.name}-{self.digest[:8]}"


@dataclass(frozen=True)
class WorkItem:
    """Rows [start, stop) of a shard, and the cells that are missing there. References only, never pixels.

    `sources` are parts that hold parents' answers of chains, or answers to the same questions that another
    configuration asked. With `retry` the part exists, and only its failed rows are asked for again.
    """

    shard: Shard
    start: int
    stop: int
    cells: tuple[str, ...]
    part: str
    sources: tuple[str, ...] = ()
    retry: bool = False

    @property
    def is_single(self) -> bool:
        """Whether this is about one image."""
        return self.stop - self.start == 1

    @property
    def note(self) -> str:
        """Name of the note of its attempts."""
        return f"{self.shard.folder}/{self.start}-{self.stop}-{short_hash(self.cells)}{'-retry' * self.retry}"

    def narrow(self, row: int) -> WorkItem:
        """The same work for one row: a part of its own, or, in a retry, a piece of the same part."""
        part = self.part if self.retry else part_name(self.shard, row, self.cells)
        return replace(self, start=row, stop=row + 1, part=part)


def shards(ingest: Manifest) -> list[Shard]:
    """The shards of an ingest manifest."""
    from pipeline.ingest import shard_uris

    tars = shard_uris(ingest)
    parts = {part.name.removeprefix("images/").removesuffix(".parquet"): part for part in ingest.select("images/")}
    return [
        Shard(name, str(ingest.location(part)), part.digest, tars[name], part.rows, part.errors)
        for name, part in sorted(parts.items())
    ]


def parts_of(shard: Shard, parts: Mapping[str, Part]) -> list[Part]:
    """The committed parts of this shard, in row order."""
    found = [part for name, part in parts.items() if name.startswith(f"{shard.folder}/")]
    return sorted(found, key=lambda part: (part.detail["start"], part.name))


def missing(shard: Shard, committed: Sequence[Part], cells: Sequence[Cell], chunk_images: int) -> list[WorkItem]:
    """Work that covers exactly the (row, cell) pairs no part has yet."""
    edges = sorted({0, shard.rows, *(part.detail[edge] for part in committed for edge in ("start", "stop"))})
    ranges: list[tuple[int, int, frozenset[str]]] = []
    for start, stop in pairwise(edges):
        there = {cell for part in committed if _overlaps(part, start, stop) for cell in part.cells}
        lacking = frozenset(cell.id for cell in cells) - there
        if ranges and ranges[-1][1:] == (start, lacking):  # one hole, whoever's edge lies in it
            start = ranges.pop()[0]
        ranges.append((start, stop, lacking))
    return [
        _item(shard, committed, cells, begin, min(begin + chunk_images, stop), lacking)
        for start, stop, lacking in ranges
        if lacking
        for begin in range(start, stop, chunk_images)
    ]


def failed(shard: Shard, committed: Sequence[Part], cells: Sequence[Cell]) -> list[WorkItem]:
    """Work that asks again for the failed rows of these cells, part by part: of a field, for the whole answer."""
    items = []
    for part in committed:
        wrong = [cell for cell in cells if part.detail["figures"].get(cell.id, {}).get("errors")]
        wholes = {cell.parent for cell in wrong if cell.container} & set(part.cells)
        again = [cell for cell in cells if cell.id in wholes or (cell.container and cell.parent in wholes)]
        wanted = frozenset(cell.id for cell in [*wrong, *again])
        if wanted:
            item = _item(shard, committed, cells, part.detail["start"], part.detail["stop"], wanted)
            items.append(replace(item, part=part.name, retry=True))
    return items


def _item(
    shard: Shard, committed: Sequence[Part], cells: Sequence[Cell], start: int, stop: int, wanted: frozenset[str]
) -> WorkItem:
    ordered = tuple(cell.id for cell in cells if cell.id in wanted)
    parents = {cell.parent for cell in cells if cell.id in wanted and cell.parent} - wanted
    questions = {question_of(cell) for cell in wanted}
    sources = [
        part.name
        for part in committed
        if _overlaps(part, start, stop)
        and any(cell in parents or (question_of(cell) in questions and cell not in wanted) for cell in part.cells)
    ]
    return WorkItem(shard, start, stop, ordered, part_name(shard, start, ordered), tuple(sources))


def part_name(shard: Shard, start: int, cells: Iterable[str]) -> str:
    """Name of the part that holds these cells from this row on."""
    return f"{shard.folder}/{start:08d}-{short_hash(cells)}.parquet"


def _overlaps(part: Part, start: int, stop: int) -> bool:
    return bool(part.detail["start"] < stop and part.detail["stop"] > start)


def figures(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Counts by cell, kept in a part's record, so that totals need no reading of Parquet."""
    counts: dict[str, dict[str, int]] = {}
    for row in rows:
        count = counts.setdefault(row["cell"], dict.fromkeys(COUNTED, 0))
        count["captions" if row["status"] == "ok" else "errors"] += 1
        count["quarantined"] += (row["error"] or "").startswith(QUARANTINED)
        for name in TOKENS:
            count[name] += row[name] or 0
    return counts


def shard_captions(
    manifest: Manifest, shard: str, columns: Sequence[str] | None = None, *, structured: bool = True
) -> pa.Table:
    """The captions of a shard that a manifest selects: an append-only store holds other cells' rows beside them.

    Error rows are included, and structured answers as a whole unless `structured` is false: their fields are captions
    of their own. Rows come in the order of their parts; those of one image need not be adjacent.
    """
    names = list(columns) if columns else schemas.CAPTIONS.names
    known = manifest.detail["cells"]
    wanted = {cell for cell, about in known.items() if structured or about["ends"] != "json"}
    cells = pa.array(sorted(wanted), pa.string())
    tables = []
    for part in sorted(manifest.parts, key=lambda part: part.name):
        if part.detail["shard"] != shard:
            continue
        table = schemas.read(manifest.location(part), schemas.CAPTIONS, list(dict.fromkeys([*names, "cell"])))
        if not set(part.cells) <= wanted:
            table = table.filter(pc.is_in(table["cell"].cast(pa.string()), value_set=cells))
        tables.append(table.select(names))
    if not tables:
        return schemas.table(schemas.CAPTIONS, []).select(names)
    return pa.concat_tables(tables).unify_dictionaries()


def figures_of(part: Part, cells: Iterable[str]) -> dict[str, dict[str, int]]:
    """The counts of a part's rows, for the cells that are asked for."""
    return {cell: part.detail["figures"][cell] for cell in cells if cell in part.detail["figures"]}


def read_part(store: Location, name: str) -> list[dict[str, Any]]:
    """All rows of a caption part."""
    rows: list[dict[str, Any]] = schemas.read(store / name, schemas.CAPTIONS).to_pylist()
    return rows
