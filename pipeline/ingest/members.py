"""The members of a tar, one by one, whatever its headers say.

Python's `tarfile` ends at the first header that is damaged, reads headers of any length into memory, and may go round
in circles at a negative size. Here each header is read by itself: one that is of no use costs its member, and what
follows is looked for behind it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from pipeline.summary import counted
from pipeline.texts import decode_name

BLOCK = tarfile.BLOCKSIZE
MAX_HEADER = 256 * 1024  # bytes of an extended header: names and attributes
MAX_READS = 64  # pieces that the header of one member is made of
MOST_DAMAGE = 3  # places that are named
WINDOW = 1 << 20  # bytes looked through at a time for the next header
MAGIC, MAGIC_AT = b"ustar", 257  # in every header but those of before 1988


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: where its bytes lie, or which other member it is a link to, or why it cannot be used."""

    name: str
    offset: int
    size: int
    target: str | None = None
    problem: str | None = None
    escaped: bool = False  # the name is not UTF-8


class Members:
    """Iterates over the files and links of an open tar; afterwards `in_words` says what was lost."""

    def __init__(self, handle: IO[bytes], size: int) -> None:
        """`size` is that of the whole tar. Raises `tarfile.ReadError` if there is no header in it at all."""
        self.handle, self.size = handle, size
        self._damage: list[str] = []
        self._places = 0
        self.joined = 0  # tars that begin behind an end mark: written one behind the other
        self._tar = tarfile.TarFile(fileobj=io.BytesIO(bytes(2 * BLOCK)), encoding="utf-8", errors="surrogateescape")
        first = self._block(0)
        if not size:
            raise tarfile.ReadError("it is empty")
        if first.strip(b"\0") and not _is_header(first) and self._search(BLOCK) is None:
            raise tarfile.ReadError("it has no header of a tar")

    def __iter__(self) -> Iterator[Member]:
        following: int | None = 0
        while following is not None:
            position = following
            block = self._block(position)
            if len(block) < BLOCK:
                self._tell(
                    f"it has no end mark at byte {position:,}: it was cut, or is damaged there; "
                    "images after that are lost"
                )
                return
            if not block.strip(b"\0"):
                following = self._search(position + BLOCK)
                self.joined += following is not None
                continue
            try:
                member, following = self._read(position)
            except Exception as error:  # tarfile raises anything on headers that were made up
                member, following = self._lost(position, block, error)
            if member is not None:
                yield member

    def in_words(self) -> str | None:
        """What is damaged, and lost by it; None if nothing is."""
        more = self._places - len(self._damage)
        return "; ".join(self._damage + [f"and {counted(more, 'more place')}"] * (more > 0)) or None

    def _tell(self, sentence: str) -> None:
        self._places += 1
        if len(self._damage) < MOST_DAMAGE:
            self._damage.append(sentence)

    def _block(self, position: int) -> bytes:
        self.handle.seek(position)
        return self.handle.read(BLOCK)

    def _read(self, position: int) -> tuple[Member | None, int | None]:
        """The member whose header is at a position (None if it is a folder or the like), and where the next is."""
        self.handle.seek(position)
        self._tar.offset = position
        self._tar.fileobj = _Bounded(self.handle)
        info = tarfile.TarInfo.fromtarfile(self._tar)
        following = self._tar.offset
        name, faults = decode_name(info.name)
        if info.size < 0:
            return Member(name, 0, 0, problem="its size in the tar is negative"), info.offset_data
        if following <= position:
            raise tarfile.ReadError("its size makes no sense")
        if info.issym() or info.islnk():
            return Member(name, 0, 0, target=_target(info), escaped=bool(faults)), following
        if not info.isfile():
            return None, following
        if info.offset_data + info.size > self.size:
            return Member(name, 0, 0, problem="the tar ends inside it"), self._behind_cut(info.offset_data, name)
        problem = "it is stored as a sparse file, and images are read by offset" if info.issparse() else None
        return Member(name, info.offset_data, info.size, problem=problem, escaped=bool(faults)), following

    def _behind_cut(self, position: int, name: str) -> int | None:
        """Where to go on behind a member that is longer than the tar: it was cut, or the header is wrong."""
        following = self._search(position)
        until = f"before byte {following:,}" if following is not None else "behind it"
        self._tell(
            f"{name} (at byte {position:,}) is longer than the tar, which was cut, or is damaged there; "
            f"what lies {until} is lost"
        )
        return following

    def _lost(self, position: int, block: bytes, error: Exception) -> tuple[Member | None, int | None]:
        """What is left of a member whose header is of no use, and the next header."""
        following = self._search(position + BLOCK)
        until = f"byte {following:,}" if following is not None else "its end"
        reason = " ".join(str(error).split()) or type(error).__name__
        self._tell(f"the header at byte {position:,} is damaged ({reason}); what lies before {until} is lost")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError):
            return None, following
        if not info.isfile():  # the header of a member comes behind those that extend it
            return None, following
        return Member(decode_name(info.name)[0], 0, 0, problem="its header in the tar is damaged"), following

    def _search(self, position: int) -> int | None:
        """Where the next sound header is, at or behind a position."""
        while position < self.size:
            self.handle.seek(position)
            window = self.handle.read(WINDOW)
            at = window.find(MAGIC)
            while at >= 0:
                start = at - MAGIC_AT
                if start >= 0 and start % BLOCK == 0 and _is_header(window[start : start + BLOCK]):
                    return position + start
                at = window.find(MAGIC, at + 1)
            position += len(window) if len(window) == WINDOW else self.size
        return None


class _Bounded:
    """A file that gives one header and no more: extended ones claim any length, and follow upon each other."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle, self.reads = handle, 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        if not 0 <= size <= MAX_HEADER or self.reads > MAX_READS:
            raise tarfile.ReadError("it is longer than any header")
        return self.handle.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)


def _is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _target(info: tarfile.TarInfo) -> str:
    """The member that a link leads to. A hard link names it, a symbolic link says where it is from here."""
    name = decode_name(info.linkname)[0]
    folder = decode_name(info.name)[0].rpartition("/")[0]
    return f"{folder}/{name}" if info.issym() and folder else name
