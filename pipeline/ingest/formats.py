"""The formats of tables that people bring: what columns a file has, and its rows, one by one.

Nothing is read but the columns that are asked for, and no more of them than a batch is in memory. Values come as they
stand in the file: no text is taken for a number or a date, and bytes that are not UTF-8 stay bytes.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol

from pipeline.ingest.lines import Lines
from pipeline.storage import Location
from pipeline.texts import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = (".parquet", ".csv", ".tsv", ".jsonl")
SUFFIXES = {**{kind: kind for kind in KINDS}, ".ndjson": ".jsonl"}
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}  # of tables of lines
BATCH = 16_384  # rows of a Parquet file that are in memory
FIELD_BYTES = 1 << 24  # of one field of a csv; beyond that a quotation mark was not closed
MISSING = frozenset(["NaN", "nan", "null", "NULL", "None", "<NA>"])  # how programs write null where there is none

LONG = "a row with more fields than the header, left out"
SHORT = "a row with fewer fields than the header"
QUOTE = "a quotation mark that is not closed, taken as it stands"
SWALLOWED = "a quoted field that holds what looks like rows of the table"
NO_JSON = "a line that is no JSON object, left out"

_NAME = re.compile(r"\s*(\w+://\S+|\S+\.\w{2,5})\s*")  # a cell that is a link or a file
_ESCAPED = re.compile("[\udc80-\udcff]")


@dataclass
class Faults:
    """What was left out or mended, by reason, with the first place of each."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, place: str) -> None:
        """Count one."""
        self.counts[reason] += 1
        self.first.setdefault(reason, place)

    def sentences(self, about: str) -> list[str]:
        """One for each reason, for the warnings of a manifest."""
        return [
            f"{about}: {reason}: {count:,} times, first in {self.first[reason]}"
            for reason, count in self.counts.items()
        ]


class File(Protocol):
    """A file of a table. A column is known by its position, in JSON lines by its name."""

    unit: str  # what its rows are counted in

    def names(self) -> list[str]:
        """The names of its columns in order, as far as the file says them before its rows."""

    def types(self) -> list[pa.DataType]:
        """What its columns are declared to hold; empty if nothing is."""

    def rows(self, columns: Sequence[Any], faults: Faults) -> Iterator[tuple[int, list[Any]]]:
        """The number and the values of each row; for a column that is None all are None."""


def kind_of(file: str) -> str | None:
    """The format that a file's name tells, if any; compression does not matter."""
    name = file.lower()
    packed = next((suffix for suffix in COMPRESSED if name.endswith(suffix)), "")
    kind = next((kind for end, kind in SUFFIXES.items() if name.removesuffix(packed).endswith(end)), None)
    return None if packed and kind == ".parquet" else kind


def open_file(location: Location, kind: str, *, header: bool) -> File:
    """The file of a table. `header` says whether the first line of a csv or tsv names the columns."""
    if kind == ".parquet":
        return _Parquet(location)
    if kind in (".csv", ".tsv"):
        return _Delimited(location, kind == ".tsv", header)
    return JsonLines(location)


class _Delimited:
    """Csv or tsv. In a tsv a quotation mark is a character like any other."""

    unit = "line"

    def __init__(self, location: Location, tabs: bool, header: bool) -> None:
        self.location, self.tabs, self.header = location, tabs, header

    def names(self) -> list[str]:
        with _lines(self.location) as lines:
            first = next(self._cells(lines, Faults()), [])
        if not self.header:
            return [""] * len(first)
        return [_unquoted(name.strip(), always=True) if self.tabs else name.strip() for name in first]

    def types(self) -> list[pa.DataType]:
        return []

    def rows(self, columns: Sequence[int | None], faults: Faults) -> Iterator[tuple[int, list[Any]]]:
        last = max((column for column in columns if column is not None), default=-1)
        with _lines(self.location) as lines:
            rows = self._cells(lines, faults)
            first = next(rows, [])
            width, always = len(first), all(_is_quoted(cell.strip()) for cell in first)
            if not self.header and first:
                yield lines.first, self._values(first, columns, lines, always)
            for cells in rows:
                if len(cells) > width and any(cell.strip() for cell in cells[width:]):
                    faults.add(LONG, self._place(lines))
                    continue
                if len(cells) <= last:
                    faults.add(SHORT, self._place(lines))
                yield lines.first, self._values(cells, columns, lines, always)

    def _cells(self, lines: Lines, faults: Faults) -> Iterator[list[str]]:
        found = _split(lines) if self.tabs else self._quoted(lines, faults)
        return (cells for cells in found if any(cell.strip() for cell in cells))

    def _quoted(self, lines: Lines, faults: Faults) -> Iterator[list[str]]:
        """Rows of a csv. A row whose quotation marks make no sense is its first line as it stands."""
        csv.field_size_limit(FIELD_BYTES)
        reader = csv.reader(lines, strict=True)
        while True:
            lines.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                cells = self._mend(lines, faults)
            if len(lines.taken) > 1 and any(_looks_like_a_row(line, len(cells)) for line in lines.taken[1:]):
                faults.add(SWALLOWED, self._place(lines))
            yield cells

    def _mend(self, lines: Lines, faults: Faults) -> list[str]:
        lines.keep_first()
        line = lines.taken[0].rstrip("\r\n")
        try:
            if '\\"' in line:  # as Spark and MySQL write them
                return next(csv.reader([line], strict=True, escapechar="\\"))
        except csv.Error:
            pass
        faults.add(QUOTE, self._place(lines))
        return line.split(",")

    def _values(self, cells: list[str], columns: Sequence[int | None], lines: Lines, always: bool) -> list[Any]:
        values = [cells[column] if column is not None and column < len(cells) else None for column in columns]
        if self.tabs:
            values = [value if value is None else _unquoted(value, always=always) for value in values]
        values = [None if value in MISSING else value for value in values]
        return [as_bytes(value) for value in values] if lines.escaped else values

    def _place(self, lines: Lines) -> str:
        return f"{self.location.name} line {lines.first}"


class JsonLines:
    """A JSON object in each line. A row need not have all columns."""

    unit = "line"

    def __init__(self, location: Location) -> None:
        self.location = location
        self.seen: set[str] = set()  # the columns that were asked for and occurred

    def names(self) -> list[str]:
        return []

    def types(self) -> list[pa.DataType]:
        return []

    def rows(self, columns: Sequence[str | None], faults: Faults) -> Iterator[tuple[int, list[Any]]]:
        asked = frozenset(columns)
        with _lines(self.location) as lines:
            for line in lines:
                text = line.strip(" \t\r\n\0\ufeff")
                lines.begin()
                if not text:
                    continue
                try:
                    row = parse_json(text)
                except ValueError:
                    row = None
                if not isinstance(row, dict):
                    faults.add(NO_JSON, f"{self.location.name} line {lines.number}")
                    continue
                self.seen |= row.keys() & asked
                values = [row.get(column) for column in columns]
                yield lines.number, [as_bytes(value) for value in values] if _ESCAPED.search(line) else values

    def columns(self) -> list[str]:
        """The names that occur, for a message that one is missing."""
        found: dict[str, None] = {}
        with _lines(self.location) as lines:
            for line in lines:
                lines.begin()
                try:
                    row = parse_json(line)
                except ValueError:
                    continue
                found |= dict.fromkeys(row if isinstance(row, dict) else ())
        return list(found)


class _Parquet:
    unit = "row"

    def __init__(self, location: Location) -> None:
        self.location = location

    def names(self) -> list[str]:
        return [field.name for field in self._schema()]

    def types(self) -> list[pa.DataType]:
        return [field.type for field in self._schema()]

    def rows(self, columns: Sequence[int | None], faults: Faults) -> Iterator[tuple[int, list[Any]]]:  # noqa: ARG002
        import pyarrow.parquet as pq

        with _opened(self.location) as handle:
            file, number = pq.ParquetFile(handle), 0
            names = file.schema_arrow.names
            wanted = sorted({names[column] for column in columns if column is not None})
            # Threads of pyarrow must not call back into a handle of Python's (see `Location.open_arrow`).
            for batch in file.iter_batches(BATCH, columns=wanted, use_threads=self.location.is_local):
                values = [_plain(_column(batch, names, column)) for column in columns]
                for row in zip(*(value or [None] * batch.num_rows for value in values), strict=True):
                    number += 1
                    yield number, list(row)

    def _schema(self) -> pa.Schema:
        import pyarrow.parquet as pq

        with _opened(self.location) as handle:
            return pq.ParquetFile(handle).schema_arrow


def _column(batch: pa.RecordBatch, names: Sequence[str], column: int | None) -> pa.Array | None:
    """A column by its position in the file; several may have one name."""
    if column is None:
        return None
    same = batch.schema.get_all_field_indices(names[column])
    return batch.column(same[names[:column].count(names[column])])


def _plain(array: pa.Array | None) -> list[Any]:
    """Values of Python; a text that is not UTF-8, whatever the file says, is bytes."""
    if array is None:
        return []
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        values = [_plain_value(value) for value in array]
    if hasattr(array.type, "value_field"):  # of a column of lists null is a list without items
        return [[] if value is None else value for value in values]
    return list(values)


def _plain_value(scalar: pa.Scalar) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.DictionaryScalar):
            return _plain_value(scalar.value)
        if isinstance(scalar, pa.ListScalar):
            return [_plain_value(value) for value in scalar.values]
        return scalar.as_buffer().to_pybytes()


@contextmanager
def _opened(location: Location) -> Iterator[Any]:
    import pyarrow as pa

    with pa.OSFile(location.uri) if location.is_local else location.open() as handle:
        yield handle


@contextmanager
def _lines(location: Location) -> Iterator[Lines]:
    compression = next((name for suffix, name in COMPRESSED.items() if location.name.lower().endswith(suffix)), None)
    with location.open() as handle:
        yield Lines(_unpacked(handle, compression))


def _unpacked(handle: IO[bytes], compression: str | None) -> io.BufferedReader:
    import pyarrow as pa

    raw: Any = handle if compression is None else pa.CompressedInputStream(handle, compression)
    return raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)


def _split(lines: Lines) -> Iterator[list[str]]:
    for line in lines:
        yield line.rstrip("\r\n").split("\t")
        lines.begin()


def as_bytes(value: Any) -> Any:
    """The bytes of a text that was read in spite of not being UTF-8; also those in a list."""
    if isinstance(value, list):
        return [as_bytes(item) for item in value]
    if not isinstance(value, str) or not _ESCAPED.search(value):
        return value
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it holds half surrogates of JSON as well
        return value


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
