"""Which image goes into which shard: what is there keeps its place, what is new goes into new shards.

An image that moves is decoded and curated again. So a shard is used again if everything usable in it is still in the
source, unchanged; otherwise it is left alone (manifests of earlier runs may still name it) and its surviving images
are packed anew, as new ones. Rows of failed images are all that ever changes in a shard: they succeed later, or go
with their file. A tar that is lost is packed again under its name.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.commits import CommitLog, Part
from pipeline.identity import digest, image_id
from pipeline.ingest import IMAGES_FOLDER
from pipeline.ingest.source import Identity, Item, Source
from pipeline.schemas import IMAGES, read
from pipeline.storage import Location


@dataclass(frozen=True)
class Batch:
    """Work on one shard: items to read under their keys, and rows of an earlier run that stay as they are."""

    shard: str
    items: tuple[Item, ...]
    keys: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...] = ()
    kept_items: tuple[Item, ...] = ()  # those of `rows`

    @property
    def stamps(self) -> str:
        """Digest of what the listing said of the shard's items, in any order."""
        return stamps_of([*self.items, *self.kept_items])


@dataclass
class Plan:
    """Parts to use as they are, and the work left to do, in order."""

    kept: list[Part] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)


def stamps_of(items: Sequence[Item]) -> str:
    """Digest of the stamps of items, in any order."""
    return digest(sorted(f"{item.name}\n{item.stamp}" for item in items))


def plan(
    source: Source,
    items: Sequence[Item],
    log: CommitLog,
    *,
    shard_images: int,
    shard_bytes: int,
    retry_failed: bool,
) -> Plan:
    """Place every item. `retry_failed` reads again what failed; what changed since it failed is always read again."""
    waiting: dict[Identity, deque[int]] = defaultdict(deque)
    for index, item in enumerate(items):
        waiting[item.identity].append(index)
    result, taken, last = Plan(), set[int](), -1
    verify = retry_failed
    earlier = sorted(log.parts(verify=verify).values(), key=lambda part: part.name)
    retry_failed = retry_failed or all(part.errors == part.rows for part in earlier)  # a dead network, most likely
    for part in earlier:
        last = max(last, int(part.detail["shard"]))
        rows = read(log.folder / part.name, IMAGES, recorded=(part.digest, "ingest")).to_pylist()
        claimed = [_claim(waiting[source.identity(row)]) for row in rows]
        found = [None if index is None else items[index] for index in claimed]
        whole = holds(log.folder / part.detail["tar"], rows, verify=verify)
        batch = _reuse(source, part, rows, found, whole, retry_failed)
        if batch is None:
            for row, index in reversed(list(zip(rows, claimed, strict=True))):
                if index is not None:
                    waiting[source.identity(row)].appendleft(index)
            continue
        taken.update(index for index in claimed if index is not None)
        if batch.items or len(batch.rows) < len(rows):
            result.batches.append(batch)
        else:
            result.kept.append(part)
    new = [item for index, item in enumerate(items) if index not in taken]
    for number, chunk in enumerate(_chunks(new, shard_images, shard_bytes), start=last + 1):
        shard = f"{number:06d}"
        result.batches.append(Batch(shard, chunk, tuple(f"{shard}_{row:06d}" for row in range(len(chunk)))))
    return result


def _chunks(items: Sequence[Item], most: int, most_bytes: int) -> Iterator[tuple[Item, ...]]:
    """Items in order, cut where there are `most` of them, or as many bytes."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) == most or size + item.size > most_bytes):
            yield tuple(chunk)
            chunk, size = [], 0
        chunk.append(item)
        size += item.size
    if chunk:
        yield tuple(chunk)


def part_name(shard: str) -> str:
    """Name of a shard's part inside the store."""
    return f"{IMAGES_FOLDER}/{shard}.parquet"


def _claim(indices: deque[int]) -> int | None:
    return indices.popleft() if indices else None


def holds(tar: Location, rows: Sequence[Mapping[str, Any]], *, verify: bool) -> bool:
    """Whether the tar is there, with room for all that its rows tell of; with `verify` every picture is looked at."""
    usable = [row for row in rows if row["status"] == "ok"]
    end = max((row["offset"] + row["size"] for row in usable), default=0)
    if not tar.exists() or tar.size() < end:
        return False
    return not verify or all(image_id(tar.read_range(row["offset"], row["size"])) == row["image_id"] for row in usable)


def _reuse(
    source: Source,
    part: Part,
    rows: Sequence[Mapping[str, Any]],
    found: Sequence[Item | None],
    whole: bool,
    retry_failed: bool,
) -> Batch | None:
    """The work left on an earlier shard, or None if it cannot be used any more.

    If its tar is not `whole`, all its images are packed again, in the order in which they lay there.
    """
    same = None not in found and part.detail["stamps"] == stamps_of([item for item in found if item is not None])
    again: list[tuple[Item, Mapping[str, Any]]] = []
    stay: list[tuple[Item, Mapping[str, Any]]] = []
    for item, row in zip(found, rows, strict=True):
        failed = row["status"] == "error"
        if item is None:
            if failed:
                continue
            return None
        changed = not same and not source.unchanged(item, row)
        if changed and not failed:
            return None
        if (changed or retry_failed) if failed else not whole:
            again.append((item, row))
        else:
            stay.append((item, row))
    if not again and not stay:
        return None
    again.sort(key=lambda pair: (pair[1]["offset"] is None, pair[1]["offset"] or 0))
    return Batch(
        part.detail["shard"],
        tuple(item for item, _ in again),
        tuple(row["key"] for _, row in again),
        tuple(row for _, row in stay),
        tuple(item for item, _ in stay),
    )
