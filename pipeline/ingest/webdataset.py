"""WebDataset tars as shards: indexed where they are, decoded once, and never copied.

A tar that is of no use (no tar, compressed, without images) is named with the reason, and the others are taken.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from pipeline import picture_kinds
from pipeline.commits import CommitLog, Part
from pipeline.errors import InputError
from pipeline.ingest.config import WebdatasetSource
from pipeline.ingest.inspect import Inspector, Picture, Reference, inspect_reference
from pipeline.ingest.listing import LEAVING, files_of
from pipeline.ingest.names import of_suffix, suffix_of
from pipeline.ingest.packing import commit_rows
from pipeline.ingest.pairing import TarPicture
from pipeline.ingest.placement import holds
from pipeline.ingest.shards import image_row
from pipeline.ingest.sidecars import TextRules
from pipeline.ingest.source import stamp_of
from pipeline.ingest.tally import Tally
from pipeline.ingest.tars import TarIndex, scan
from pipeline.progress import Progress
from pipeline.schemas import IMAGES, read
from pipeline.storage import Location
from pipeline.summary import counted
from pipeline.texts import decode_name

KIB = 1024
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")  # compressed
# ones are looked for to be named: images are read by offset.
READING = 2  # raised when members or texts are read by other rules: tars are then indexed anew
Row = dict[str, Any]
Known = Mapping[tuple[int, int], Picture]  # pictures by offset and size


@dataclass(frozen=True)
class Tar:
    """A tar as it was found."""

    location: Location
    stamp: str
    size: int

    @property
    def uri(self) -> str:
        """Its address as it can be stored and shown: escaped where it is not UTF-8."""
        return decode_name(self.location.uri)[0]


@dataclass
class Indexed:
    """Parts of the tars that can be used, in order, and for all others the reason why not, by address."""

    parts: list[Part]
    unusable: dict[str, str]


def find_tars(source: WebdatasetSource, left_out: Tally | None = None) -> list[Tar]:
    """The tars that a path, a folder, a glob or a list of these names, sorted; raises `InputError` if one has none.

    What lies in the folders beside tars is counted in `left_out`.
    """
    left_out = Tally() if left_out is None else left_out
    paths = [source.path] if isinstance(source.path, str) else list(source.path)
    if not paths:
        raise InputError("ingest.source.path is an empty list; expected tars, folders of tars or globs")
    locations = {tar for path in paths for tar in _expand(path, source.follow_links, left_out)}
    tars = []
    for location in sorted(locations):
        info = location.info()
        stamp = stamp_of({**info, "mtime_ns": info.get("mtime")})
        tars.append(Tar(location, stamp, int(info.get("size") or 0)))
    return tars


def _expand(path: str, follow_links: bool, left_out: Tally) -> list[Location]:
    location = Location.of(path)
    if location.is_dir():
        return _in_folder(location, follow_links, left_out)
    if location.exists():
        return [location]
    if not set(path) & set("*?["):
        hint = "; braces are no glob here: write *, or a list" if "{" in path else ""
        raise InputError(f"the tar {location} is not there; expected a tar, a folder of tars or a glob{hint}")
    matches = location.glob()
    if not matches:
        raise InputError(f"the glob {location} matches no file; expected WebDataset tars")
    tars = list[Location]()
    for match, is_folder in matches:
        tars += _in_folder(match, follow_links, left_out) if is_folder else [match]
    return tars


def _in_folder(folder: Location, follow_links: bool, left_out: Tally) -> list[Location]:
    files = files_of(folder, follow_links=follow_links, left_out=left_out)
    tars = [folder / file.path for file in files if file.name.lower().endswith(SUFFIXES)]
    for file in files:
        if not file.name.lower().endswith(SUFFIXES):
            left_out.add(of_suffix(suffix_of(file.name)), file.name)
    if not tars:
        links = left_out[LEAVING]
        lead = counted(links, "link leads", "links lead")
        also = f" ({lead} out of it: set ingest.source.follow_links to take those)" if links else ""
        raise InputError(f"the folder {folder} holds no files that end in .tar{also}; expected WebDataset tars")
    return tars


def index_tars(
    tars: Sequence[Tar], store: Location, config: WebdatasetSource, *, workers: int, retry_failed: bool
) -> Indexed:
    """Bring the store up to date with the tars. Raises `InputError` if none of them can be used.

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
        same = [part for part in earlier[tar.uri] if _is_current(part, tar)]
        if same and not (retry_failed and (same[-1].errors or not _is_intact(tar, same[-1], log))):
            done[tar] = same[-1]
    waiting, unusable = [tar for tar in tars if tar not in done], dict[Tar, str]()
    if not waiting:
        return Indexed(list(done.values()), {})
    total = sum(tar.size // KIB for tar in tars)
    progress = Progress("ingest", total, "KiB", done=total - sum(tar.size // KIB for tar in waiting))
    with Inspector(workers, partial(inspect_reference, keep=False)) as inspector:
        reader = _Reader(config, inspector, progress)
        for tar in waiting:
            started = time.monotonic()
            try:
                index, rows = reader.read(tar, _known(tar, earlier[tar.uri], log))
            except InputError as error:
                unusable[tar] = str(error)
                progress.update(tar.size // KIB)
                continue
            shard = _name(tar, rows, earlier[tar.uri], names, log)
            names.add(shard)
            detail = {
                "tar": tar.uri,
                "stamp": tar.stamp,
                "reading": READING,
                "damage": index.damage,
                "left_out": index.left_out.to_json(),
                "mended": index.mended.to_json(),
            }
            done[tar] = commit_rows(log, shard, [{**row, "shard": shard} for row in rows], started, detail)
    progress.close()
    if not done:
        raise InputError(_none_usable(list(unusable.values())))
    return Indexed([done[tar] for tar in tars if tar in done], {tar.uri: unusable[tar] for tar in unusable})


def _is_current(part: Part, tar: Tar) -> bool:
    return bool(part.detail["stamp"] == tar.stamp and part.detail.get("reading") == READING)


def _none_usable(reasons: Sequence[str]) -> str:
    if len(reasons) == 1:
        return reasons[0]
    return f"none of the {len(reasons):,} tars can be used; the first: {reasons[0]}"


@dataclass
class _Reader:
    """Makes the rows of tars, without the name of the shard."""

    config: WebdatasetSource
    inspector: Inspector
    progress: Progress

    def read(self, tar: Tar, known: Known) -> tuple[TarIndex, list[Row]]:
        """Index a tar and look at its pictures; those that are `known`, by offset and size, are not decoded again.

        Raises `InputError` if the tar cannot be used.
        """
        if tar.uri != tar.location.uri:
            raise InputError(f"the name of the tar {tar.uri} is not UTF-8, and shards are known by address; rename it")
        config = self.config
        index = scan(tar.location, TextRules.of(config))
        if not index.pictures:
            damage = f"; {index.damage}" if index.damage else ""
            others = ", ".join(index.left_out.counts()) or "no other files"
            raise InputError(
                f"{tar.location} holds no images ({others}{damage}); expected {' '.join(picture_kinds.SUFFIXES)}"
            )
        return index, list(self._rows(tar, index.pictures, known))

    def _rows(
        self, tar: Tar, members: Sequence[TarPicture], known: Mapping[tuple[int, int], Picture]
    ) -> Iterator[Row]:
        decided = [self._without_looking(member, known) for member in members]
        looked_at = self.inspector(
            [
                Reference(tar.location.uri, member.offset, member.size)
                for member, picture in zip(members, decided, strict=True)
                if picture is None
            ]
        )
        counted = 0
        for member, picture in zip(members, decided, strict=True):
            yield image_row(
                "",
                member.key,
                member.name,
                picture or next(looked_at),
                alt_text=member.alt_text,
                url=member.url,
                offset=member.offset,
            )
            step = max(0, min((member.offset + member.size) // KIB, tar.size // KIB) - counted)
            self.progress.update(step, tar.location.name)
            counted += step
        self.progress.update(tar.size // KIB - counted)

    def _without_looking(self, member: TarPicture, known: Known) -> Picture | None:
        if member.problem is not None:
            return Picture(member.problem)
        if member.size > self.config.max_image_bytes:
            return Picture(f"longer than ingest.source.max_image_bytes ({member.size:,} bytes)")
        return known.get((member.offset, member.size))


def _known(tar: Tar, earlier: Sequence[Part], log: CommitLog) -> dict[tuple[int, int], Picture]:
    """The pictures of a tar that was indexed by other rules, and is still the same."""
    facts = [field.name for field in fields(Picture) if field.name not in ("data", "error")]
    pictures = {}
    for part in earlier:
        if part.detail["stamp"] == tar.stamp and part.detail.get("reading") != READING:
            for row in read(log.folder / part.name, IMAGES, recorded=(part.digest, "ingest")).to_pylist():
                if row["status"] == "ok":
                    pictures[row["offset"], row["size"]] = Picture(**{name: row[name] for name in facts})
    return pictures


def _is_intact(tar: Tar, part: Part, log: CommitLog) -> bool:
    rows = read(log.folder / part.name, IMAGES, ["status", "offset", "size", "image_id"]).to_pylist()
    return holds(tar.location, rows, verify=True)


def _name(tar: Tar, rows: Sequence[Row], earlier: Sequence[Part], names: set[str], log: CommitLog) -> str:
    """The name of an earlier part that is made again, or of one with the very same rows; else a new one."""
    ordered = sorted(rows, key=lambda row: row["key"])
    for part in earlier:
        shard = part.detail["shard"]
        if _is_current(part, tar) or read(log.folder / part.name, IMAGES).to_pylist() == [
            {**row, "shard": shard} for row in ordered
        ]:
            return str(shard)
    stem = tar.location.stem
    candidates = [stem, f"{tar.location.parent.name}-{stem}", *(f"{stem}-{number}" for number in range(2, 10_000))]
    return next(name for name in candidates if name not in names)
