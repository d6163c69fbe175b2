"""Tables that people bring, in one file or many: their rows, with names and texts by the rule of `pipeline.texts`."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.ingest.formats import KINDS, NO_JSON, Faults, File, JsonLines, kind_of, open_file
from pipeline.storage import Location
from pipeline.texts import NOT_TEXT, Encoding, decode, decode_name, texts_of
from pipeline.texts import kind_of as value_in_words

Column = str | int  # its name, or its number from 0
SHOWN = 30  # columns of a table in a message


def find_tables(path: str, what: str) -> list[Location]:
    """The tables of a path, a folder or a glob, sorted by name. Raises `InputError` if there is none.

    A folder stands for those in it and in its subfolders. A path that is there is no glob, whatever its name.
    """
    place = Location.of(path)
    if place.is_dir():
        found = [file for file, _ in place.entries(recursive=True) if _is_shown(file, place) and kind_of(file.name)]
        if not found:
            raise InputError(f"{what} {place} is a folder without tables; expected files that end in {_kinds()}")
    elif place.exists():
        found = [place]
    else:
        found = [file for file in place.glob() if _is_shown(file, file.parent) and kind_of(file.name)]
        if not found:
            raise InputError(f"{what} {place} is not there; expected a {', '.join(KINDS)} table, a folder or a glob")
    return found


def read_table(
    files: Location | Sequence[Location],
    columns: Mapping[str, Column],
    *,
    texts: Collection[str] = (),
    encoding: Encoding = "utf-8",
    header: bool | None = None,
    kind: str | None = None,
    about: str = "",
) -> Table:
    """A table of named columns. `columns` maps the setting that names a column to the column.

    Columns whose setting is among `texts` hold texts, all others a name (of a file, a link, a key). `header` says
    whether the first line of a csv or tsv names the columns; None: unless all are given by number. `kind` is the format
    where names of files do not tell it; `about` begins the messages. Raises `InputError` if a file is missing or of
    no known kind, or if no file has a column (those it has are named).
    """
    if header is None:
        header = not all(isinstance(column, int) for column in columns.values())
    opened = []
    for place in [files] if isinstance(files, Location) else files:
        if not place.exists() or place.is_dir():
            found = "a folder" if place.exists() else "not there"
            raise InputError(f"{_prefix(about)}the table {place} is {found}; expected a file that ends in {_kinds()}")
        its_kind = kind or kind_of(place.name)
        if its_kind is None:
            raise InputError(f"the table {place} is of no known kind; expected a name that ends in {_kinds()}")
        opened.append(_Opened(place, its_kind, open_file(place, its_kind, header=header), about))
    return Table(opened, columns, frozenset(texts), encoding, about)


class Table:
    """Iterating gives a tuple for each row: a text or None for a name, a tuple of texts for a column of texts.

    `faults` says what was left out or mended, `blank` counts texts that are empty; both are complete after the last
    row. Raises `InputError` while it is read: for a value that is no text, a file that cannot be read, and a column
    that no row of JSON lines has.
    """

    def __init__(
        self,
        files: Sequence[_Opened],
        columns: Mapping[str, Column],
        texts: frozenset[str],
        encoding: Encoding,
        about: str,
    ) -> None:
        self.faults, self.blank = Faults(), 0
        self._files, self._columns, self._encoding, self._about = files, columns, encoding, about
        self._is_text = [setting in texts for setting in columns]
        self._positions = [[file.position(*named) for named in columns.items()] for file in files]
        for number, (setting, column) in enumerate(columns.items()):
            lacking = [file for file, row in zip(files, self._positions, strict=True) if row[number] is None]
            if len(lacking) == len(files):
                raise files[0].lacks(setting, column)
            for file in lacking:
                self.faults.add(f"a file without column {column!r}", file.location.name)
        for file, positions in zip(files, self._positions, strict=True):
            for named, position, is_text in zip(columns.items(), positions, self._is_text, strict=True):
                file.check_type(*named, position, is_text=is_text)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for file, positions in zip(self._files, self._positions, strict=True):
            count = 0
            with file.reading():
                for count, (number, values) in enumerate(file.file.rows(positions, self.faults), start=1):
                    yield tuple(
                        (self._texts if is_text else self._name)(value, file, number, column)
                        for is_text, value, column in zip(self._is_text, values, self._columns.values(), strict=True)
                    )
            if not count and NO_JSON in self.faults.counts:
                raise file.unreadable(f"{self.faults.first[NO_JSON]} is no JSON object")
        self._check_json()

    def _check_json(self) -> None:
        """Only after its last row it is known that JSON lines lack a column."""
        lines = [file for file in self._files if isinstance(file.file, JsonLines)]
        if len(lines) < len(self._files) or not any(file.file.seen for file in lines):
            return
        for setting, column in self._columns.items():
            if not any(column in file.file.seen for file in lines):
                if NO_JSON in self.faults.counts:
                    raise lines[0].unreadable(f"{self.faults.first[NO_JSON]} is no JSON object")
                raise lines[0].lacks(setting, column)

    def _texts(self, value: Any, file: _Opened, number: int, column: Column) -> tuple[str, ...]:
        found = texts_of(value, self._encoding)
        if found.refused is not None:
            raise file.refuses(number, column, found.refused, "texts or lists of texts")
        for fault in found.faults:
            self.faults.add(f"texts of column {column!r}: {fault}", file.place(number))
        items = len(value) if isinstance(value, (list, tuple)) else 1
        self.blank += items - len(found.texts) - found.faults.count(NOT_TEXT)
        return found.texts

    def _name(self, value: Any, file: _Opened, number: int, column: Column) -> str | None:
        if isinstance(value, bytes) and self._encoding == "windows-1252":
            value = decode(value, self._encoding).text
        if value is None or (isinstance(value, float) and value != value):  # NaN differs from itself
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, (str, bytes)):
            raise file.refuses(number, column, value_in_words(value), "one text a row")
        name, faults = decode_name(value)
        for fault in faults:
            self.faults.add(f"column {column!r}: {fault}", file.place(number))
        return name.strip() or None


@dataclass(frozen=True)
class _Opened:
    """A file of a table, and what is said of it in messages."""

    location: Location
    kind: str
    file: File
    about: str

    def position(self, setting: str, column: Column) -> Any:
        """How its reader knows a column; None if it has no such column."""
        with self.reading():
            names = self.file.names()
        if isinstance(self.file, JsonLines):
            if isinstance(column, int):
                raise InputError(f"{self._prefix}column {column} ({setting}): columns of JSON lines are given by name")
            return column
        if isinstance(column, int):
            return column if column < len(names) else None
        if names.count(column) > 1:
            numbers = ", ".join(str(number) for number, name in enumerate(names) if name == column)
            raise InputError(
                f"{self._prefix}{self.location} has several columns {column!r} ({setting}); give one by its number, "
                f"counted from 0: {numbers}"
            )
        return names.index(column) if column in names else None

    def check_type(self, setting: str, column: Column, position: Any, *, is_text: bool) -> None:
        """Refuse a declared type that can hold no text."""
        with self.reading():
            types = self.file.types()
        if position is None or not types or _may_hold(types[position], is_text):
            return
        expected = "texts or lists of texts" if is_text else "one text a row"
        raise InputError(
            f"{self._prefix}{self.location}: column {column!r} holds {types[position]}, expected {expected} ({setting})"
        )

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever keeps the file from being read is one sentence."""
        try:
            yield
        except (pa.ArrowException, OSError, EOFError, UnicodeError, csv.Error) as error:
            raise self.unreadable(" ".join(str(error).split())) from error

    def unreadable(self, reason: str) -> InputError:
        """The file is not what its name or format says."""
        if self.about:
            return InputError(f"{self.about} cannot be read as {self._format}: {self.location}: {reason}")
        return InputError(f"{self.location} cannot be read as {self._format}: {reason}")

    def lacks(self, setting: str, column: Column) -> InputError:
        """No row has a column."""
        with self.reading():
            names = self.file.columns() if isinstance(self.file, JsonLines) else self.file.names()
        known = f"columns 0 to {len(names) - 1}" if names and isinstance(column, int) else ", ".join(names[:SHOWN])
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN and not isinstance(column, int) else ""
        return InputError(
            f"{self._prefix}{self.location} has no column {column!r} ({setting}); it has {known or 'none'}{more}"
            + ("; if its first line is no header, give columns by number" if self.kind in (".csv", ".tsv") else "")
        )

    def refuses(self, number: int, column: Column, found: str, expected: str) -> InputError:
        """A value that is no text."""
        return InputError(
            f"{self._prefix}{self.location} {self.file.unit} {number}: column {column!r} holds {found}, "
            f"expected {expected}"
        )

    def place(self, number: int) -> str:
        """A row, for the faults."""
        return f"{self.location.name} {self.file.unit} {number}"

    @property
    def _prefix(self) -> str:
        return _prefix(self.about)

    @property
    def _format(self) -> str:
        return self.kind.removeprefix(".")


def _may_hold(kind: pa.DataType, is_text: bool) -> bool:
    """Whether a column of an Arrow type may hold texts (or names). A column of floats may be all NaN."""
    types = pa.types
    if types.is_dictionary(kind):
        return _may_hold(kind.value_type, is_text)
    if _is_list(kind):
        return is_text and not _is_list(kind.value_type) and _may_hold(kind.value_type, is_text)
    if types.is_null(kind) or types.is_floating(kind):
        return True
    if types.is_integer(kind):
        return not is_text
    return any(
        test(kind)
        for test in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
            types.is_fixed_size_binary,
        )
    )


def _is_list(kind: pa.DataType) -> bool:
    return hasattr(kind, "value_field") and not pa.types.is_map(kind)


def _is_shown(file: Location, below: Location) -> bool:
    """Whether no part of its path below a folder is hidden, or a note of the program that wrote the folder."""
    inside = file.uri.removeprefix(below.uri).lstrip("/")
    return not any(part.startswith((".", "_")) for part in inside.split("/"))


def _kinds() -> str:
    return " ".join(KINDS)


def _prefix(about: str) -> str:
    return f"{about}: " if about else ""
