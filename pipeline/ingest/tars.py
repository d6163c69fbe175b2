"""The index of a WebDataset tar: which images it holds, and where, found by its headers alone."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, Any

from pipeline.errors import InputError
from pipeline.ingest.inspect import SUFFIXES
from pipeline.storage import Location

CAPTION_FIELDS = ("caption", "alt_text", "text")  # of a .json member, in this order
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(slots=True)
class Sample:
    """An image of a tar with the text that shares its key. `cut` if the tar ends inside the image."""

    key: str
    name: str
    offset: int
    size: int
    cut: bool = False
    alt_text: str | None = None
    url: str | None = None


@dataclass(slots=True)
class Index:
    """What a tar holds; `damage` says where and how it ends too early, `others` counts suffixes without use."""

    samples: list[Sample] = field(default_factory=list)
    unreadable_texts: int = 0
    damage: str | None = None
    others: Counter[str] = field(default_factory=Counter)


def scan(location: Location) -> Index:
    """Index a tar. Raises `InputError` if it is missing, compressed, or no tar at all."""
    index, texts = Index(), dict[str, tuple[str | None, str | None]]()
    try:
        size = location.size()
        with location.open() as handle:
            _refuse_compressed(location, handle)
            with tarfile.open(fileobj=handle, mode="r:") as tar:
                try:
                    while (member := tar.next()) is not None:
                        _take(index, texts, tar, member, size)
                        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header in memory
                except (tarfile.TarError, EOFError) as error:
                    index.damage = f"it is damaged after byte {tar.offset}: {error}"
                index.damage = index.damage or _end(handle, tar.offset)
    except tarfile.TarError as error:
        raise InputError(f"{location} is not a tar ({error}); expected WebDataset tars of images") from error
    except OSError as error:
        raise InputError(f"the tar {location} cannot be read: {error.strerror or error}") from error
    for sample in index.samples:
        sample.alt_text, sample.url = texts.get(sample.key, (None, None))
    _make_keys_unique(index.samples)
    return index


def _take(index: Index, texts: dict[str, Any], tar: tarfile.TarFile, member: tarfile.TarInfo, size: int) -> None:
    folder, _, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")  # WebDataset: the key ends at the first dot of the name
    if not member.isfile() or not stem:
        return
    key, suffix = f"{folder}/{stem}" if folder else stem, suffix.lower()
    cut = member.offset_data + member.size > size
    if f".{suffix}".endswith(SUFFIXES):
        index.samples.append(Sample(key, member.name, member.offset_data, member.size, cut))
    elif suffix in ("txt", "json") and not cut:
        reader = tar.extractfile(member)
        data = reader.read() if reader is not None else b""
        _take_text(index, texts, key, suffix, data)
    else:
        index.others[f".{suffix}"] += 1


def _take_text(index: Index, texts: dict[str, Any], key: str, suffix: str, data: bytes) -> None:
    """`.txt` wins over the caption of `.json`; the URL is only in the latter."""
    alt_text, url = texts.get(key, (None, None))
    if suffix == "txt":
        texts[key] = (data.decode(errors="replace").strip() or alt_text, url)
        return
    try:
        fields = json.loads(data)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        index.unreadable_texts += 1
        return
    caption = next((fields[name].strip() for name in CAPTION_FIELDS if isinstance(fields.get(name), str)), None)
    found = fields.get("url")
    texts[key] = (alt_text or caption or None, found if isinstance(found, str) else url)


def _end(handle: IO[bytes], offset: int) -> str | None:
    """tarfile takes any end for the end. A sound tar ends in a block of zeros."""
    handle.seek(offset)
    block = handle.read(tarfile.BLOCKSIZE)
    if len(block) == tarfile.BLOCKSIZE and not block.strip(b"\0"):
        return None
    return f"it has no end mark at byte {offset}: it was cut, or is damaged there"


def _refuse_compressed(location: Location, handle: IO[bytes]) -> None:
    kind = COMPRESSED.get(handle.read(2))
    if kind is not None:
        raise InputError(f"{location} is compressed ({kind}), and images are read by offset; unpack it to a plain tar")
    handle.seek(0)


def _make_keys_unique(samples: list[Sample]) -> None:
    """Several images of one key, or a key that occurs again, take the member's name and a number."""
    counts = Counter(sample.key for sample in samples)
    used = {key for key, count in counts.items() if count == 1}
    for sample in samples:
        if counts[sample.key] > 1:
            key, number = sample.name, 1
            while key in used:
                number += 1
                key = f"{sample.name}#{number}"
            used.add(key)
            sample.key = key
