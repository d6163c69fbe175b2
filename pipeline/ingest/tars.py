"""The index of a WebDataset tar: which images it holds, and where, and which text belongs to which."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import IO

from pipeline import picture_kinds
from pipeline.errors import InputError
from pipeline.ingest.members import Member, Members
from pipeline.ingest.names import HIDDEN, is_hidden, of_suffix, suffix_of
from pipeline.ingest.pairing import TarFile, TarPicture, key_of, pair
from pipeline.ingest.sidecars import (
    MOST_TEXTS,
    SUFFIXES,
    TOO_LONG,
    TOO_MUCH,
    UNREADABLE,
    Sidecar,
    TextRules,
    read_sidecar,
)
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from pipeline.texts import NAME, name_key

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd", b"\x04\x22": "lz4"}
LOST_LINK = "links to what is not in the tar"
JOINED = "tars that were written one behind the other, all of which are read"


@dataclass(slots=True)
class TarIndex:
    """What a tar holds. `damage` says in words what is lost; what was left out or mended is counted."""

    pictures: list[TarPicture] = field(default_factory=list)
    damage: str | None = None
    left_out: Tally = field(default_factory=Tally)
    mended: Tally = field(default_factory=Tally)


def scan(location: Location, rules: TextRules | None = None) -> TarIndex:
    """Index a tar. Raises `InputError` if it is missing, compressed, or no tar at all."""
    try:
        with location.open() as handle:
            _refuse_compressed(location, handle)
            members = Members(handle, location.size())
            contents = _Contents(handle, rules or TextRules())
            for member in members:
                contents.take(member)
    except tarfile.TarError as error:
        raise InputError(f"{location} is not a tar ({error}); expected WebDataset tars of images") from error
    except OSError as error:
        raise InputError(f"the tar {location} cannot be read: {error.strerror or error}") from error
    index = contents.index()
    index.damage = members.in_words()
    if members.joined:
        index.mended.add(JOINED, location.name, members.joined)
    return index


class _Contents:
    """The pictures, texts and links of a tar, as they come."""

    def __init__(self, handle: IO[bytes], rules: TextRules) -> None:
        self.handle, self.rules = handle, rules
        self.entries: list[TarFile] = []
        self.links: list[Member] = []
        self.left_out, self.mended = Tally(), Tally()
        self._held = 0  # characters of texts

    def take(self, member: Member) -> None:
        """Look at one member: it is a picture, by its suffix or its first bytes, a text, a link, or none of these."""
        if member.escaped:
            self.mended.add(NAME, member.name)
        suffix = suffix_of(member.name)
        if is_hidden(member.name.rpartition("/")[2]) or "__MACOSX" in member.name.split("/"):
            self.left_out.add(HIDDEN, member.name)
        elif member.target is not None:
            self.links.append(member)
        elif suffix in SUFFIXES:
            self.entries.append(self._sidecar(member))
        elif suffix in picture_kinds.SUFFIXES or self._begins_as_picture(member, suffix):
            self.entries.append(
                TarPicture(key_of(member.name), member.name, member.offset, member.size, member.problem)
            )
        else:
            self.left_out.add(of_suffix(suffix), member.name)

    def index(self) -> TarIndex:
        """The pictures with their texts, after all members were taken."""
        entries = [*self.entries, *_linked(self.links, self.entries, self.left_out)]
        pair(entries, self.rules, self.left_out, self.mended)
        pictures = [entry for entry in entries if isinstance(entry, TarPicture)]
        _make_keys_unique(pictures)
        return TarIndex(pictures, None, self.left_out, self.mended)

    def _begins_as_picture(self, member: Member, suffix: str) -> bool:
        if suffix in picture_kinds.OTHER_SUFFIXES or member.problem is not None or not member.size:
            return False
        self.handle.seek(member.offset)
        return picture_kinds.kind_of(self.handle.read(min(member.size, picture_kinds.HEAD))) is not None

    def _sidecar(self, member: Member) -> Sidecar:
        if member.problem is not None:
            return Sidecar(member.name, problem=UNREADABLE)
        if not self.rules.may_be_read(member.name, member.size):
            return Sidecar(member.name, problem=TOO_LONG)
        self.handle.seek(member.offset)
        sidecar = read_sidecar(member.name, self.handle.read(member.size), self.rules)
        if self._held + sidecar.length > MOST_TEXTS * self.rules.max_bytes:
            return Sidecar(member.name, problem=TOO_MUCH)
        self._held += sidecar.length
        return sidecar


def _linked(links: Sequence[Member], entries: Sequence[TarFile], left_out: Tally) -> list[TarFile]:
    """Links to pictures and texts of the tar are what they lead to, under their own names; also links to links."""
    if not links:
        return []
    known: dict[str, TarFile] = {
        name_key(entry.name if isinstance(entry, TarPicture) else entry.file): entry for entry in entries
    }
    copies, waiting, before = list[TarFile](), list(links), len(links) + 1
    while len(waiting) < before:
        before, later = len(waiting), []
        for link in waiting:
            entry = known.get(name_key(link.target or ""))
            if entry is None:
                later.append(link)
                continue
            known[name_key(link.name)] = copy = _renamed(entry, link.name)
            copies.append(copy)
        waiting = later
    for link in waiting:
        left_out.add(LOST_LINK, link.name)
    return copies


def _renamed(entry: TarFile, name: str) -> TarFile:
    if isinstance(entry, TarPicture):
        return replace(entry, name=name, key=key_of(name))
    return replace(entry, file=name)


def _refuse_compressed(location: Location, handle: IO[bytes]) -> None:
    kind = COMPRESSED.get(handle.read(2))
    if kind is not None:
        raise InputError(f"{location} is compressed ({kind}), and images are read by offset; unpack it to a plain tar")


def _make_keys_unique(pictures: list[TarPicture]) -> None:
    """Several images of one key, or a key that occurs again, take the member's name and a number."""
    counts = Counter(picture.key for picture in pictures)
    used = {key for key, count in counts.items() if count == 1}
    numbers = Counter[str]()
    for picture in pictures:
        if counts[picture.key] > 1:
            key = picture.name
            while key in used:
                numbers[picture.name] += 1
                key = f"{picture.name}#{numbers[picture.name] + 1}"
            used.add(key)
            picture.key = key
