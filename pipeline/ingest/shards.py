"""Writing shards: a WebDataset tar that has the same bytes whenever it holds the same images."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.ingest.inspect import Picture

EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # others are their own name


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a tar: `key.EXTENSION`, and `key.txt` if there is alt text."""

    key: str
    format: str
    data: bytes
    alt_text: str | None


def pack(entries: Iterable[Entry]) -> tuple[bytes, dict[str, int]]:
    """Make a tar; returns its bytes and the offset of every image by key.

    Members carry no time, owner or mode of their own, so a tar that is made again is equal byte for byte, and
    a tar of the same entries and some more starts with the same bytes: offsets into it stay true.
    """
    sink, offsets = io.BytesIO(), {}
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            extension = EXTENSIONS.get(entry.format, entry.format.lower())
            offsets[entry.key] = sink.tell() + tarfile.BLOCKSIZE
            _add(tar, f"{entry.key}.{extension}", entry.data)
            if entry.alt_text is not None:
                _add(tar, f"{entry.key}.txt", entry.alt_text.encode())
    return sink.getvalue(), offsets


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o644, 0
    tar.addfile(member, io.BytesIO(data))


def image_row(
    shard: str, key: str, source: str, picture: Picture, *, alt_text: str | None, url: str | None, offset: int | None
) -> dict[str, Any]:
    """A row of the images table. `offset` is that of the encoded image in the shard's tar."""
    ok = picture.error is None
    facts = {name: getattr(picture, name) for name in Picture.__slots__ if name not in ("data", "error")}
    return {
        **facts,
        "shard": shard,
        "key": key,
        "source": source,
        "offset": offset if ok else None,
        "alt_text": alt_text,
        "url": url,
        "status": "ok" if ok else "error",
        "error": picture.error,
    }


def reasons(rows: Iterable[Mapping[str, Any]], most: int = 5) -> dict[str, int]:
    """The most frequent errors of a shard's rows, with how often each was met."""
    counts: dict[str, int] = {}
    for row in rows:
        if row["status"] == "error":
            counts[row["error"]] = counts.get(row["error"], 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])
