"""The lines of an imported text file, numbered, with a way back for a reader of quoted fields."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from pipeline.storage import Location

COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
PEEK = 1 << 16  # bytes in which a file shows how its lines end
_ESCAPED = re.compile("[\udc80-\udcff]")


class Lines(Iterator[str]):
    r"""UTF-8 with or without a mark, or UTF-16 with one; lines end in \n, or in \r where a file has no \n.

    Bytes that are not UTF-8 come as half surrogates, from which they can be had again; `escaped` says that there are
    some in the lines taken since `begin`.
    """

    def __init__(self, handle: io.BufferedReader) -> None:
        """Raises `UnicodeError` while it is read if a file that is marked as UTF-16 is none."""
        start = handle.peek(PEEK)
        marked = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        old = b"\r" in start and b"\n" not in start
        self._unicode = not marked
        self._text = io.TextIOWrapper(
            handle,
            encoding="utf-16" if marked else "utf-8-sig",
            errors="surrogatepass" if marked else "surrogateescape",
            newline="\r" if old else "\n",
        )
        self._again: list[str] = []
        self.number = 0  # of the line given last
        self.taken: list[str] = []

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self.number += 1
        self.taken.append(line)
        return line

    def begin(self) -> None:
        """Forget the lines taken so far."""
        self.taken = []

    def keep_first(self) -> None:
        """Give all lines since `begin` but the first once more."""
        self._again.extend(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        del self.taken[1:]

    @property
    def first(self) -> int:
        """Number of the first line since `begin`."""
        return self.number - len(self.taken) + 1

    @property
    def escaped(self) -> bool:
        """Whether the lines since `begin` have bytes that are not UTF-8."""
        odd = [line for line in self.taken if not line.isascii()]  # most lines are no work
        return self._unicode and any(is_escaped(line) for line in odd)


@contextmanager
def open_lines(location: Location) -> Iterator[Lines]:
    """The lines of a file, unpacked if its name says that it is packed."""
    compression = next((name for suffix, name in COMPRESSED.items() if location.name.lower().endswith(suffix)), None)
    with location.open() as handle:
        yield Lines(_unpacked(handle, compression))


def _unpacked(handle: IO[bytes], compression: str | None) -> io.BufferedReader:
    import pyarrow as pa

    raw: Any = handle if compression is None else pa.CompressedInputStream(handle, compression)
    return raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)


def is_escaped(text: str) -> bool:
    """Whether it holds bytes that are not UTF-8, as half surrogates."""
    return _ESCAPED.search(text) is not None


def as_bytes(value: Any) -> Any:
    """The bytes of a text that was read in spite of not being UTF-8; also those in a list."""
    if isinstance(value, list):
        return [as_bytes(item) for item in value]
    if not isinstance(value, str) or not is_escaped(value):
        return value
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it holds half surrogates of JSON as well
        return value
