"""Tables of JSON lines. Only after the last row it is known which columns they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.ingest.lines import as_bytes, is_escaped, open_lines
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from pipeline.texts import decode_name, parse_json

if TYPE_CHECKING:
    import pyarrow as pa

NO_JSON = "a line that is no JSON object, left out"


class JsonLines:
    """A JSON object in each line. A row need not have all columns."""

    unit = "line"

    def __init__(self, location: Location) -> None:
        self.location = location
        self.empty = True  # so far
        self.seen: set[str] = set()  # the columns that were asked for and occurred

    def names(self) -> list[str]:
        return []

    def types(self) -> list[pa.DataType]:
        return []

    def rows(self, columns: Sequence[str | None], left_out: Tally) -> Iterator[tuple[int, list[Any]]]:
        asked = frozenset(columns)
        with open_lines(self.location) as lines:
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
                    left_out.add(NO_JSON, f"{self.location.name} line {lines.number}")
                    continue
                self.empty = False
                self.seen |= row.keys() & asked
                values = [row.get(column) for column in columns]
                yield lines.number, [as_bytes(value) for value in values] if is_escaped(line) else values

    def columns(self) -> list[str]:
        """The names that occur, for a message that one is missing."""
        names: dict[str, None] = {}
        with open_lines(self.location) as lines:
            for line in lines:
                lines.begin()
                try:
                    row = parse_json(line)
                except ValueError:
                    continue
                names |= dict.fromkeys(row if isinstance(row, dict) else ())
        return [decode_name(name)[0] for name in names]
