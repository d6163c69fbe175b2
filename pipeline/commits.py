"""Commit first, then publish: how parts come into a store so that a kill at any moment loses nothing.

A part is one file (usually Parquet) of a store. Its record is written to `_commits/` first, then the file
appears under its final name in one atomic step. So whatever a glob sees is complete and on record, and a
record whose file is missing, or has another size, is work still to do. The record of a part that replaces
another carries the other's too, so that a kill between record and publication leaves the old part in force.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.identity import digest
from pipeline.messages import say
from pipeline.storage import Location

COMMITS, DAMAGED = "_commits", "_damaged"


@dataclass(frozen=True)
class Part:
    """The record of one committed file.

    `name` is its path inside the store, `cells` what it answers (see captioning), `detail` what a stage adds.
    `content` is a bag (`pipeline.identity`) of what it holds: the digest of its bytes, unless the stage knows better.
    """

    name: str
    rows: int
    errors: int
    bytes: int
    digest: str
    cells: tuple[str, ...] = ()
    seconds: float = 0.0
    detail: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""

    def __post_init__(self) -> None:
        if not self.content:
            object.__setattr__(self, "content", self.digest)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a record or a manifest; not a deep copy, as there may be very many parts."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Part:
        """The inverse of `to_json`."""
        return cls(**{**data, "cells": tuple(data["cells"])})


class CommitLog:
    """The committed parts of one store (a folder)."""

    def __init__(self, folder: Location) -> None:
        self.folder = folder

    def commit(
        self,
        name: str,
        data: bytes,
        *,
        rows: int,
        errors: int = 0,
        cells: Sequence[str] = (),
        seconds: float = 0.0,
        detail: Mapping[str, Any] | None = None,
        content: str = "",
    ) -> Part:
        """Record a part, then publish it. Committing the same name again replaces the part."""
        part = Part(
            name, rows, errors, len(data), digest(data), tuple(cells), round(seconds, 3), dict(detail or {}), content
        )
        replaced = self.get(name)
        record = {**part.to_json(), "replaces": replaced.to_json() if replaced is not None else None}
        self._record(name).write(json.dumps(record, indent=1).encode())
        (self.folder / name).write(data)
        return part

    def parts(self, *, verify: bool = False) -> dict[str, Part]:
        """All published parts by name. Records are read in parallel: on object stores each is one request.

        With `verify` every file is read, and one that is not what its record says is set aside and counts as not
        published.
        """
        sizes = {self._relative(file): size for file, size in self.folder.files(recursive=True)}
        records = [file for file, _ in (self.folder / COMMITS).files(".json", recursive=True)]
        with ThreadPoolExecutor(max_workers=16) as pool:
            loaded = list(pool.map(self._load, records))
        current = (self._published(candidates, sizes.get(candidates[0].name)) for candidates in loaded if candidates)
        published = {part.name: part for part in current if part is not None}
        damaged = {name for name, part in published.items() if verify and not self._is_intact(part)}
        return {name: part for name, part in published.items() if name not in damaged}

    def _is_intact(self, part: Part) -> bool:
        """Whether the published file has the content on record; one that has not is set aside."""
        file = self.folder / part.name
        data = file.read()
        if digest(data) == part.digest:
            return True
        aside = self.folder / DAMAGED / part.name
        say(f"{file} is damaged; it is kept as {aside} and made again", warning=True)
        aside.write(data)
        file.remove()
        return False

    def get(self, name: str) -> Part | None:
        """The part of this name if it is published."""
        record, file = self._record(name), self.folder / name
        candidates = self._load(record) if record.exists() else ()
        return self._published(candidates, file.size()) if candidates and file.exists() else None

    def _published(self, candidates: Sequence[Part], size: int | None) -> Part | None:
        """Which of the parts on record (the newest first) the published file is. Sizes tell, or else the content."""
        fitting = [part for part in candidates if part.bytes == size]
        if len({part.digest for part in fitting}) > 1:
            written = digest((self.folder / fitting[0].name).read())
            fitting = [part for part in fitting if part.digest == written]
        return fitting[0] if fitting else None

    def _record(self, name: str) -> Location:
        return self.folder / COMMITS / f"{name}.json"

    def _relative(self, file: Location) -> str:
        return file.uri.removeprefix(self.folder.uri).lstrip("/")

    @staticmethod
    def _load(record: Location) -> tuple[Part, ...]:
        """The part on record, and the one it replaces. A torn or foreign record has none: its part is made again."""
        try:
            data = json.loads(record.read())
            replaced = data.pop("replaces", None)
            return tuple(Part.from_json(part) for part in (data, replaced) if part is not None)
        except (ValueError, TypeError, KeyError, AttributeError):
            return ()
