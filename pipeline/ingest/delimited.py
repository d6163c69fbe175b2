"""Csv and tsv: rows of cells, where a quotation mark must not swallow what follows it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.ingest.lines import Lines, as_bytes, open_lines
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from pipeline.texts import decode_name

if TYPE_CHECKING:
    import pyarrow as pa

FIELD_BYTES = 1 << 24  # of one field of a csv; beyond that a quotation mark was not closed
MISSING = frozenset(["NaN", "nan", "null", "NULL", "None", "<NA>"])  # how programs write null where there is none

LONG = "a row with more fields than the header, left out"
SHORT = "a row with fewer fields than the header"
QUOTE = "a quotation mark that is not closed, taken as it stands"
SWALLOWED = "a quoted field that holds what looks like rows of the table"

_NAME = re.compile(r"\s*(\w+://\S+|\S+\.\w{2,5})\s*")  # a cell that is a link or a file


class Delimited:
    """Csv or tsv. In a tsv a quotation mark is a character like any other."""

    unit = "line"

    def __init__(self, location: Location, tabs: bool, header: bool) -> None:
        self.location, self.tabs, self.header = location, tabs, header

    def names(self) -> list[str]:
        if not self.header:
            return [""] * len(self._first)
        names = [_unquoted(name.strip(), always=True) if self.tabs else name.strip() for name in self._first]
        return [decode_name(name)[0] for name in names]

    @cached_property
    def _first(self) -> list[str]:
        with open_lines(self.location) as lines:
            return next(self._cells(lines, Tally()), [])

    def types(self) -> list[pa.DataType]:
        return []

    def rows(self, columns: Sequence[int | None], left_out: Tally) -> Iterator[tuple[int, list[Any]]]:
        last = max((column for column in columns if column is not None), default=-1)
        with open_lines(self.location) as lines:
            rows = self._cells(lines, left_out)
            first = next(rows, [])
            width, always = len(first), all(_is_quoted(cell.strip()) for cell in first)
            if not self.header and first:
                yield lines.first, self._values(first, columns, lines, always)
            for cells in rows:
                if len(cells) > width and any(cell.strip() for cell in cells[width:]):
                    left_out.add(LONG, self._place(lines))
                    continue
                if len(cells) <= last:
                    left_out.add(SHORT, self._place(lines))
                yield lines.first, self._values(cells, columns, lines, always)

    def _cells(self, lines: Lines, left_out: Tally) -> Iterator[list[str]]:
        rows = _split(lines) if self.tabs else self._quoted(lines, left_out)
        return (cells for cells in rows if any(map(str.strip, cells)))

    def _quoted(self, lines: Lines, left_out: Tally) -> Iterator[list[str]]:
        """Rows of a csv. A row whose quotation marks make no sense is its first line as it stands.

        So is one whose further lines all look like rows: its mark was closed by one that belongs to another row.
        """
        csv.field_size_limit(FIELD_BYTES)
        reader = csv.reader(lines, strict=True)
        while True:
            lines.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                cells = self._mend(lines, left_out)
            if len(lines.taken) > 1:
                first, *more = (_looks_like_a_row(line, len(cells)) for line in lines.taken)
                if first and all(more):
                    cells = self._mend(lines, left_out)
                elif any(more):
                    left_out.add(SWALLOWED, self._place(lines))
            yield cells

    def _mend(self, lines: Lines, left_out: Tally) -> list[str]:
        lines.keep_first()
        line = lines.taken[0].rstrip("\r\n")
        try:
            if '\\"' in line:  # as Spark and MySQL write them
                return next(csv.reader([line], strict=True, escapechar="\\"))
        except csv.Error:
            pass
        left_out.add(QUOTE, self._place(lines))
        return line.split(",")

    def _values(self, cells: list[str], columns: Sequence[int | None], lines: Lines, always: bool) -> list[Any]:
        values = [cells[column] if column is not None and column < len(cells) else None for column in columns]
        if self.tabs:
            values = [value if value is None else _unquoted(value, always=always) for value in values]
        values = [None if value in MISSING else value for value in values]
        return [as_bytes(value) for value in values] if lines.escaped else values

    def _place(self, lines: Lines) -> str:
        return f"{self.location.name} line {lines.first}"


def _split(lines: Lines) -> Iterator[list[str]]:
    for line in lines:
        yield line.rstrip("\r\n").split("\t")
        lines.begin()


def _looks_like_a_row(line: str, width: int) -> bool:
    cells = line.split(",")
    return len(cells) == width > 1 and any(_NAME.fullmatch(cell) for cell in cells)


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _unquoted(cell: str, *, always: bool) -> str:
    """The text of a cell of a tsv. It was quoted by a program if all are, or if each mark inside is there twice."""
    if not _is_quoted(cell):
        return cell
    inner = cell[1:-1]
    doubled = inner.replace('""', "")
    return inner.replace('""', '"') if '"' not in doubled and (always or doubled != inner) else cell
