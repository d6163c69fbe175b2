"""Which image goes into which shard: what is there keeps its place, what is new goes into new shards.

An image that moves is decoded and curated again. So a shard is used again if everything usable in it is still in the
source, unchanged; otherwise it is left alone (manifests of earlier runs may still name it) and its surviving images
are packed anew, as new ones. Its tar only grows: failed images succeed later, or go with their file. Rows that share
a picture with an earlier row come and go, which leaves the tar as it is. A tar that is lost is packed again under its
name.

Items that name one picture (a list with a row for every caption) go into one shard, which holds the picture once.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipeline.commits import CommitLog, Part
from pipeline.identity import digest, image_id
from pipeline.ingest import IMAGES_FOLDER
from pipeline.ingest.source import Identity, Item, Source
from pipeline.schemas import IMAGES, read
from pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ShardTask:
    """Work on one shard: items to read under their keys, and rows of an earlier run that stay as they are.

    `stored` has those of the items, by key, whose picture is packed already.
    """

    shard: str
    items: tuple[Item, ...]
    keys: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...] = ()
    kept_items: tuple[Item, ...] = ()  # those of `rows`
    stored: Mapping[str, Stored] = field(default_factory=dict)

    @property
    def stamps(self) -> str:
        """Digest of what the listing said of the shard's items, in any order."""
        return stamps_of([*self.items, *self.kept_items])


@dataclass(frozen=True)
class Stored:
    """A row of an earlier run, and the tar that its picture lies in."""

    row: Mapping[str, Any]
    tar: Location


@dataclass
class Plan:
    """Parts to use as they are, and the work left to do, in order."""

    kept: list[Part] = field(default_factory=list)
    tasks: list[ShardTask] = field(default_factory=list)


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
    verify = retry_failed
    earlier = sorted(log.parts(verify=verify).values(), key=lambda part: part.name)
    retry_failed = retry_failed or all(part.errors == part.rows for part in earlier)  # a dead network, most likely
    shards = [_Shard(source, log, part, verify, retry_failed) for part in earlier]
    waiting: dict[Identity, deque[int]] = defaultdict(deque)
    for index, item in enumerate(items):
        waiting[item.identity].append(index)
    taken = {index for shard in shards for index in shard.claim(items, waiting)}
    new = [_New(item, source.picture(item.name)) for index, item in enumerate(items) if index not in taken]
    left = _joined(source, new, items, shards)
    result = Plan()
    for shard in shards:
        if shard.task is not None:
            result.tasks.append(shard.task)
        elif shard.is_used:
            result.kept.append(shard.part)
    first = max((int(part.detail["shard"]) for part in earlier), default=-1) + 1
    for number, group in enumerate(_together(left, shard_images, shard_bytes), start=first):
        name = f"{number:06d}"
        keys = tuple(f"{name}_{row:06d}" for row in range(len(group)))
        stored = {key: one.stored for key, one in zip(keys, group, strict=True) if one.stored is not None}
        result.tasks.append(ShardTask(name, tuple(one.item for one in group), keys, stored=stored))
    return result


@dataclass(frozen=True, slots=True)
class _New:
    """An item that has no row yet, the picture it names, and where that is stored already."""

    item: Item
    picture: str | None
    stored: Stored | None = None


class _Shard:
    """A shard of an earlier run. `claims` are the items of its rows, if it is used again."""

    def __init__(self, source: Source, log: CommitLog, part: Part, verify: bool, retry_failed: bool) -> None:
        self.source, self.log, self.part = source, log, part
        self.verify, self.retry_failed = verify, retry_failed
        self.tar = log.folder / part.detail["tar"]
        self.claims: list[int | None] | None = None
        self.is_whole = False
        self.task: ShardTask | None = None  # what is to be done

    @property
    def is_used(self) -> bool:
        """Whether it is used again."""
        return self.claims is not None

    def rows(self) -> pa.Table:
        """Its rows."""
        return read(self.log.folder / self.part.name, IMAGES, recorded=(self.part.digest, "ingest"))

    def claim(self, items: Sequence[Item], waiting: Mapping[Identity, deque[int]]) -> list[int]:
        """Take the items of its rows, if it can be used again, and decide what is to be done."""
        rows = self.rows().to_pylist()
        claimed = [_claim(waiting[self.source.identity(row)]) for row in rows]
        self.is_whole = holds(self.tar, rows, verify=self.verify)
        task = self._reuse(items, rows, claimed)
        if task is None:
            for row, index in reversed(list(zip(rows, claimed, strict=True))):
                if index is not None:
                    waiting[self.source.identity(row)].appendleft(index)
            return []
        self.claims = claimed
        self.task = task if task.items or len(task.rows) < len(rows) else None
        return [index for index in claimed if index is not None]

    def join(self, items: Sequence[Item], more: Sequence[_New]) -> None:
        """Add items whose pictures are those of rows that it has."""
        assert self.claims is not None
        rows = self.rows().to_pylist()
        task = self.task or self._reuse(items, rows, self.claims)
        assert task is not None
        start = max(int(row["key"].rpartition("_")[2]) for row in rows) + 1
        keys = tuple(f"{task.shard}_{number:06d}" for number in range(start, start + len(more)))
        self.task = replace(
            task,
            items=(*task.items, *(one.item for one in more)),
            keys=(*task.keys, *keys),
            stored={key: one.stored for key, one in zip(keys, more, strict=True) if one.stored is not None},
        )

    def _reuse(
        self, items: Sequence[Item], rows: Sequence[Mapping[str, Any]], claimed: Sequence[int | None]
    ) -> ShardTask | None:
        claimed_items = [None if index is None else items[index] for index in claimed]
        return _reuse(self.source, self.part, rows, claimed_items, self.is_whole, self.retry_failed)


def _joined(source: Source, new: Sequence[_New], items: Sequence[Item], shards: Sequence[_Shard]) -> list[_New]:
    """New items go to the shard that holds their picture. Returns the others, with what shards that are left hold."""
    wanted = {one.picture for one in new} - {None}
    places: dict[str | None, tuple[_Shard, Stored]] = {}
    for shard in sorted(shards, key=lambda shard: not shard.is_used) if wanted else ():
        if shard.is_whole and (shard.is_used or source.lasting):
            table = shard.rows()
            for row, (name, status) in enumerate(
                zip(*(table[c].to_pylist() for c in ("source", "status")), strict=True)
            ):
                if status == "ok" and (picture := source.picture(name)) in wanted and picture not in places:
                    places[picture] = shard, Stored(table.slice(row, 1).to_pylist()[0], shard.tar)
    left: list[_New] = []
    joining: dict[str, list[_New]] = defaultdict(list)
    for one in new:
        if one.picture not in places:
            left.append(one)
            continue
        shard, stored = places[one.picture]
        (joining[shard.part.name] if shard.is_used else left).append(replace(one, stored=stored))
    for shard in shards:
        if shard.part.name in joining:
            shard.join(items, joining[shard.part.name])
    return left


def _together(new: Sequence[_New], most: int, most_bytes: int) -> list[list[_New]]:
    """Shards of so many pictures or bytes, in their order; items that name the same picture are in the same shard."""
    shard_of: dict[str | int, int] = {}
    groups: list[list[_New]] = []
    pictures = size = 0  # of the last shard
    for index, one in enumerate(new):
        picture = one.picture or index
        if picture not in shard_of:
            if not groups or pictures == most or (pictures and size + one.item.size > most_bytes):
                groups.append([])
                pictures = size = 0
            shard_of[picture] = len(groups) - 1
            pictures, size = pictures + 1, size + one.item.size
        groups[shard_of[picture]].append(one)
    return groups


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
    claimed: Sequence[Item | None],
    whole: bool,
    retry_failed: bool,
) -> ShardTask | None:
    """The work left on an earlier shard, or None if it cannot be used any more.

    If its tar is not `whole`, all its images are packed again, in the order in which they lay there.
    """
    same = None not in claimed and part.detail["stamps"] == stamps_of([item for item in claimed if item is not None])
    named = _named_in_tar(rows)
    again: list[tuple[Item, Mapping[str, Any]]] = []
    stay: list[tuple[Item, Mapping[str, Any]]] = []
    for item, row in zip(claimed, rows, strict=True):
        failed = row["status"] == "error"
        if item is None:
            if failed or row["key"] not in named:
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
    return ShardTask(
        part.detail["shard"],
        tuple(item for item, _ in again),
        tuple(row["key"] for _, row in again),
        tuple(row for _, row in stay),
        tuple(item for item, _ in stay),
    )


def _named_in_tar(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The keys that pictures have in the tar: of rows that share one, the first."""
    first: dict[int, str] = {}
    for row in sorted(rows, key=lambda row: row["key"]):
        if row["status"] == "ok":
            first.setdefault(row["offset"], row["key"])
    return set(first.values())
