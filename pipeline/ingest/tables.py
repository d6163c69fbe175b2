"""Imported tables, in one file or many: their rows, with names and texts by the rule of `pipeline.texts`."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import faults
from pipeline.errors import HolismError, InputError
from pipeline.ingest.config import Column
from pipeline.ingest.formats import KINDS, TableFile, kind_of, open_file
from pipeline.ingest.json_lines import NO_JSON, JsonLines
from pipeline.ingest.parquet import may_hold
from pipeline.ingest.tally import Tally
from pipeline.storage import OF_FILES, Location
from pipeline.texts import NOT_TEXT, Encoding, decode, decode_name, texts_of
from pipeline.texts import kind_of as value_in_words

SHOWN, LETTERS = 30, 60  # columns of a table in a message, and letters of the name of one


def find_tables(path: str, what: str) -> list[Location]:
    """The tables of a path, a folder or a glob, sorted by name. Raises `InputError` if there is none.

    A folder stands for those in it and in its subfolders, also a folder that matches a glob. A path that is there is
    no glob, whatever its name.
    """
    place = Location.of(path)
    if place.is_dir():
        tables = _tables_in(place, place)
        if not tables:
            raise InputError(f"{what} {place} is a folder without tables; expected files that end in {_kinds()}")
        return tables
    if place.exists():
        return [place]
    tables = []
    for match, is_folder in place.glob():
        tables += _tables_in(match, place) if is_folder else [match] * _is_table(match, place)
    if not tables:
        hint = "; braces are no glob here: write * for them" if "{" in path else ""
        raise InputError(f"{what} {place} is not there; expected a {', '.join(KINDS)} table, a folder or a glob{hint}")
    return sorted(set(tables))


def _tables_in(folder: Location, asked: Location) -> list[Location]:
    return [file for file, _ in folder.entries(recursive=True) if _is_table(file, asked)]


def _is_table(file: Location, asked: Location) -> bool:
    return is_shown(file, asked) and kind_of(file.name) is not None


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
    whether the first line of a csv or tsv names the columns; None: unless all are given by number. `kind` is the
    format where names of files do not tell it; `about` begins the messages. Raises `InputError` if a file is missing
    or of no known kind, or if no file has a column (those it has are named).
    """
    if header is None:
        header = not all(isinstance(column, int) for column in columns.values())
    opened = []
    for place in [files] if isinstance(files, Location) else files:
        if not place.exists() or place.is_dir():
            what = "a folder" if place.exists() else "not there"
            raise InputError(f"{_prefix(about)}the table {place} is {what}; expected a file that ends in {_kinds()}")
        its_kind = kind or kind_of(place.name)
        if its_kind is None:
            raise InputError(f"the table {place} is of no known kind; expected a name that ends in {_kinds()}")
        opened.append(_Opened(place, its_kind, open_file(place, its_kind, header=header), about))
    return Table(opened, columns, frozenset(texts), encoding, about)


def told(table: Table, about: str, section: str) -> list[str]:
    """What was left out of a table, as warnings; `section` of the configuration names it."""
    hint = f"; if they are Windows-1252, set {section}.encoding: windows-1252"
    return [f"{one}{hint}" if NOT_TEXT in one else one for one in table.left_out.sentences(about)]


class Table:
    """Iterating gives a tuple for each row: a text or None for a name, a tuple of texts for a column of texts.

    `left_out` counts what was left out or mended, `blank` counts empty texts; both are complete after the last row.
    Raises `InputError` while it is read: for a value that is no text, a file that cannot be read, and a column that
    no row of JSON lines has.
    """

    def __init__(
        self,
        files: Sequence[_Opened],
        columns: Mapping[str, Column],
        texts: frozenset[str],
        encoding: Encoding,
        about: str,
    ) -> None:
        self.left_out, self.blank = Tally(), 0
        self._files, self._columns, self._encoding, self._about = files, columns, encoding, about
        self._is_text = [setting in texts for setting in columns]
        self._positions = [[file.position(*named) for named in columns.items()] for file in files]
        empty = [file for file in files if file.is_empty]
        for file in empty:
            self.left_out.add("an empty file", file.location.name)
        for number, (setting, column) in enumerate(columns.items()):
            lacking = [file for file, row in zip(files, self._positions, strict=True) if row[number] is None]
            if len(lacking) == len(files):
                raise next((file for file in files if file not in empty), files[0]).lacks(setting, column)
            for file in lacking:
                if file not in empty:
                    self.left_out.add(f"a file without column {column!r}", file.location.name)
        for file, positions in zip(files, self._positions, strict=True):
            for column, position, is_text in zip(columns.values(), positions, self._is_text, strict=True):
                file.check_type(column, position, is_text=is_text)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for file, positions in zip(self._files, self._positions, strict=True):
            if all(position is None for position in positions):
                continue
            empty, bad = True, self.left_out[NO_JSON]
            with file.reading():
                for number, values in file.file.rows(positions, self.left_out):
                    empty = False
                    yield tuple(
                        (self._texts if is_text else self._name)(value, file, number, column)
                        for is_text, value, column in zip(self._is_text, values, self._columns.values(), strict=True)
                    )
            if empty and self.left_out[NO_JSON] > bad:
                raise file.unreadable(f"{self.left_out.example(NO_JSON)} is no JSON object")
        self._check_json()

    def _check_json(self) -> None:
        """Only after its last row it is known that JSON lines lack a column."""
        readers = [file.file for file in self._files if isinstance(file.file, JsonLines)]
        seen = {column for reader in readers for column in reader.seen}
        if len(readers) < len(self._files) or all(reader.empty for reader in readers):
            return
        for setting, column in self._columns.items():
            if column not in seen:
                if self.left_out[NO_JSON]:
                    raise self._files[0].unreadable(f"{self.left_out.example(NO_JSON)} is no JSON object")
                raise self._files[0].lacks(setting, column)

    def _texts(self, value: Any, file: _Opened, number: int, column: Column) -> tuple[str, ...]:
        cell = texts_of(value, self._encoding)
        if cell.refused is not None:
            raise file.refuses(number, column, cell.refused, "texts or lists of texts")
        for fault in cell.faults:
            self.left_out.add(f"texts of column {column!r}: {fault}", file.place(number))
        items = len(value) if isinstance(value, (list, tuple)) else 1
        self.blank += items - len(cell.texts) - cell.faults.count(NOT_TEXT)
        return cell.texts

    def _name(self, value: Any, file: _Opened, number: int, column: Column) -> str | None:
        if isinstance(value, bytes) and self._encoding == "windows-1252":
            value = decode(value, self._encoding).text
        if value is None or (isinstance(value, float) and value != value):  # NaN differs from itself
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, (str, bytes)):
            kind = "a list" if isinstance(value, list) else value_in_words(value)
            raise file.refuses(number, column, kind, "one text a row")
        name, mended = decode_name(value)
        for fault in mended:
            self.left_out.add(f"column {column!r}: {fault}", file.place(number))
        return name.strip() or None


@dataclass(frozen=True)
class _Opened:
    """A file of a table, and what is said of it in messages."""

    location: Location
    kind: str
    file: TableFile
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

    @property
    def is_empty(self) -> bool:
        """Whether it has no column at all; of JSON lines that is known only after they were read."""
        with self.reading():
            return not isinstance(self.file, JsonLines) and not self.file.names()

    def check_type(self, column: Column, position: Any, *, is_text: bool) -> None:
        """Refuse a declared type that can hold no text."""
        with self.reading():
            types = self.file.types()
        if position is None or not types or may_hold(types[position], is_text):
            return
        expected = "texts or lists of texts" if is_text else "one text a row"
        raise InputError(
            f"{self._prefix}{self.location}: column {column!r} holds {types[position]}, expected {expected}"
        )

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever keeps the file from being read is one sentence."""
        try:
            yield
        except HolismError:
            raise
        except Exception as error:
            if isinstance(error, (pa.ArrowException, EOFError, UnicodeError, csv.Error, *OF_FILES)):
                raise self.unreadable(" ".join(str(error).split())) from error
            if not self.location.is_local:  # every store has errors of its own
                raise faults.of_store(error, self.location.uri) from error
            if isinstance(error, OSError):
                raise self.unreadable(" ".join(str(error).split())) from error
            raise

    def unreadable(self, reason: str) -> InputError:
        """The file is not what its name or format says."""
        if self.about:
            return InputError(f"{self.about} cannot be read as {self._format}: {self.location}: {reason}")
        return InputError(f"{self.location} cannot be read as {self._format}: {reason}")

    def lacks(self, setting: str, column: Column) -> InputError:
        """No row has a column."""
        with self.reading():
            names = self.file.columns() if isinstance(self.file, JsonLines) else self.file.names()
        if self.is_empty:
            return InputError(
                f"{self._prefix}{self.location} is empty; expected a table with column {column!r} ({setting})"
            )
        by_number = bool(names) and (isinstance(column, int) or not any(names))
        known = f"columns 0 to {len(names) - 1}" if by_number else ", ".join(map(_shown, names[:SHOWN]))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN and not by_number else ""
        hint = ""
        if isinstance(column, str) and self.kind in (".csv", ".tsv"):
            hint = "; give columns by number" + ", if its first line is no header" * any(names)
        return InputError(
            f"{self._prefix}{self.location} has no column {column!r} ({setting}); it has {known or 'none'}{more}{hint}"
        )

    def refuses(self, number: int, column: Column, held: str, expected: str) -> InputError:
        """A value that is no text."""
        return InputError(
            f"{self._prefix}{self.location} {self.file.unit} {number}: column {column!r} holds {held}, "
            f"expected {expected}"
        )

    def place(self, number: int) -> str:
        """A row, as an example of what was left out."""
        return f"{self.location.name} {self.file.unit} {number}"

    @property
    def _prefix(self) -> str:
        return _prefix(self.about)

    @property
    def _format(self) -> str:
        return self.kind.removeprefix(".")


def _shown(name: str) -> str:
    """A column's name in a message: what is no header may be long."""
    line = " ".join(name.split())
    return line if len(line) <= LETTERS else f"{line[:LETTERS]}…"


def is_shown(file: Location, asked: Location) -> bool:
    """Whether no part of its path, beyond what was asked for, is hidden or a marker file of a program."""
    parts = set(file.uri.split("/")) - set(asked.uri.split("/"))
    return not any(part.startswith((".", "_")) for part in parts)


def _kinds() -> str:
    return " ".join(KINDS)


def _prefix(about: str) -> str:
    return f"{about}: " if about else ""
