"""The files of a folder and its subfolders: what is hidden or leads elsewhere is left out and counted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline import picture_kinds
from pipeline.ingest.names import HIDDEN, is_hidden
from pipeline.ingest.source import stamp_of
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from pipeline.texts import decode_name

READERS = 16  # requests at a time, where a folder is on an object store
LEAVING = "links that lead out of the folder (ingest.source.follow_links takes them)"
DEAD_LINK = "links to nothing"
NO_FILE = "files that are no ordinary ones"
CLOSED = "folders that cannot be read"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was found. `name` is its path inside the folder, escaped if it is not UTF-8; `path` is as it is."""

    name: str
    path: str
    stamp: str
    size: int


def files_of(root: Location, *, follow_links: bool, left_out: Tally) -> list[File]:
    """The files of a folder, sorted by name."""
    files = _local(root, follow_links, left_out) if root.is_local else _remote(root, left_out)
    return sorted(files, key=lambda file: file.name)


def pictures_among(root: Location, files: Sequence[File]) -> set[str]:
    """The names of those files that begin as pictures do."""

    def begins_as_picture(file: File) -> bool:
        try:
            return (
                picture_kinds.kind_of((root / file.path).read_range(0, min(file.size, picture_kinds.HEAD))) is not None
            )
        except OSError:
            return False

    files = [file for file in files if file.size]
    if root.is_local:
        return {file.name for file in files if begins_as_picture(file)}
    with ThreadPoolExecutor(READERS) as pool:
        are_pictures = pool.map(begins_as_picture, files)
        return {file.name for file, is_picture in zip(files, are_pictures, strict=True) if is_picture}


def _remote(root: Location, left_out: Tally) -> Iterator[File]:
    for location, info in root.entries(recursive=True):
        name = location.uri.removeprefix(root.uri).lstrip("/")
        if any(is_hidden(part) for part in name.split("/")):
            left_out.add(HIDDEN, name)
        else:
            yield File(decode_name(name)[0], name, stamp_of(info), int(info.get("size") or 0))


def _local(root: Location, follow_links: bool, left_out: Tally) -> Iterator[File]:
    home = os.path.realpath(root.uri)
    seen: set[str] = set()

    def closed(error: OSError) -> None:
        left_out.add(CLOSED, decode_name(os.path.relpath(error.filename or root.uri, root.uri))[0])

    def leaves(path: str) -> bool:
        target = os.path.realpath(path)
        return not (follow_links or target == home or target.startswith(home.rstrip(os.sep) + os.sep))

    for folder, subfolders, names in os.walk(root.uri, followlinks=True, onerror=closed):
        seen.add(os.path.realpath(folder))
        inside = os.path.relpath(folder, root.uri)
        prefix = "" if inside == os.curdir else f"{inside}/"
        for name in subfolders[:]:
            path = os.path.join(folder, name)
            if is_hidden(name) or (os.path.islink(path) and leaves(path)):
                left_out.add(HIDDEN if is_hidden(name) else LEAVING, decode_name(prefix + name)[0])
                subfolders.remove(name)
            elif os.path.realpath(path) in seen:
                subfolders.remove(name)
        for name in names:
            path = os.path.join(folder, name)
            shown = decode_name(prefix + name)[0]
            if is_hidden(name):
                left_out.add(HIDDEN, shown)
            elif os.path.islink(path) and leaves(path):
                left_out.add(LEAVING, shown)
            elif not os.path.isfile(path):
                left_out.add(NO_FILE if os.path.exists(path) else DEAD_LINK, shown)
            else:
                status = os.stat(path)
                yield File(shown, prefix + name, f"{status.st_size}@{status.st_mtime_ns}", status.st_size)
