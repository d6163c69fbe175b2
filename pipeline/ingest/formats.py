"""The formats of imported tables: what columns a file has, and its rows, one by one.

Nothing is read but the columns that are asked for, and no more of them than a batch is in memory. Values come as they
stand in the file: no text is taken for a number or a date, and bytes that are not UTF-8 stay bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.ingest.delimited import Delimited
from pipeline.ingest.json_lines import JsonLines
from pipeline.ingest.lines import COMPRESSED
from pipeline.ingest.parquet import Parquet
from pipeline.ingest.tally import Tally
from pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

KINDS = (".parquet", ".csv", ".tsv", ".jsonl")
SUFFIXES = {**{kind: kind for kind in KINDS}, ".ndjson": ".jsonl"}


class TableFile(Protocol):
    """A file of a table. A column is known by its position, in JSON lines by its name."""

    unit: str  # what its rows are counted in

    def names(self) -> list[str]:
        """The names of its columns in order, as far as the file says them before its rows."""

    def types(self) -> list[pa.DataType]:
        """What its columns are declared to hold; empty if nothing is."""

    def rows(self, columns: Sequence[Any], left_out: Tally) -> Iterator[tuple[int, list[Any]]]:
        """The number and the values of each row; for a column that is None all are None."""


def kind_of(file: str) -> str | None:
    """The format that a file's name tells, if any; compression does not matter."""
    name = file.lower()
    packed = next((suffix for suffix in COMPRESSED if name.endswith(suffix)), "")
    kind = next((kind for end, kind in SUFFIXES.items() if name.removesuffix(packed).endswith(end)), None)
    return None if packed and kind == ".parquet" else kind


def open_file(location: Location, kind: str, *, header: bool) -> TableFile:
    """The file of a table. `header` says whether the first line of a csv or tsv names the columns."""
    if kind == ".parquet":
        return Parquet(location)
    if kind in (".csv", ".tsv"):
        return Delimited(location, kind == ".tsv", header)
    return JsonLines(location)
