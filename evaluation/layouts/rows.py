"""Rows of somebody's table, whether it is Parquet, csv, tsv, JSON lines, or a JSON document.

Tables are read by `pipeline.ingest.tables`. A JSON document is a list of objects, an object of objects (whose keys do
not matter), or one object, which is one row. A column of a document may lead into an object or a list by dots:
`conversations.1.value`. Texts and names are what they are everywhere else (`pipeline.texts`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipeline import texts
from pipeline.errors import InputError
from pipeline.ingest import tables
from pipeline.ingest.config import Column
from pipeline.storage import Location

JSON = ".json"
CHUNK = 1 << 20  # characters of a list that are read at a time


@dataclass(frozen=True)
class Rows:
    """Which rows of which files. `kind` is their format where names do not tell it; `where` keeps some rows."""

    files: Sequence[Location]
    kind: str | None = None
    header: bool | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None

    def read(self, columns: Mapping[str, Column], texts_of: Collection[str] = ()) -> Iterator[dict[str, Any]]:
        """The rows that are wanted, by setting: a name or None, and a tuple of texts for those in `texts_of`.

        Raises `InputError` for what is no table, and for a column that is missing or holds something else.
        """
        wanted = {**columns, **{f"where {column}": column for column in self.where}}
        found = self._document(wanted, texts_of) if self._is_document() else self._table(wanted, texts_of)
        kept = (row for row in found if all(row[f"where {name}"] == value for name, value in self.where.items()))
        return islice(kept, self.limit)

    def _is_document(self) -> bool:
        return self.kind == JSON or (self.kind is None and self.files[0].name.lower().endswith(JSON))

    def _table(self, columns: Mapping[str, Column], texts_of: Collection[str]) -> Iterator[dict[str, Any]]:
        table = tables.read_table(
            list(self.files), columns, texts=texts_of, header=self.header, kind=self.kind, about="the list"
        )
        for row in table:
            yield dict(zip(columns, row, strict=True))
        mended = (texts.HALVES, texts.NULS, texts.WINDOWS, texts.NAME)
        lost = [told for told in table.left_out.sentences("the list") if not any(reason in told for reason in mended)]
        if lost:  # one row less is another benchmark
            raise InputError(f"{lost[0]}; a benchmark needs all its rows")

    def _document(self, columns: Mapping[str, Column], texts_of: Collection[str]) -> Iterator[dict[str, Any]]:
        for file in self.files:
            for number, item in enumerate(_items(file, first_rows_only=self.limit is not None), 1):
                at = f"{file}, row {number}"
                yield {
                    setting: _value(item, str(column), at, is_text=setting in texts_of)
                    for setting, column in columns.items()
                }


def document(location: Location) -> Any:
    """A JSON document. Raises `InputError` if it is none."""
    try:
        return texts.parse_json(location.read())
    except ValueError as error:
        raise InputError(f"{location} is not JSON: {error}") from error


def records(value: Any, location: Location, what: str) -> list[dict[str, Any]]:
    """A part of a document that has to be a list of objects."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InputError(
            f"{location} has no list of {what}; expected a JSON file of this kind: see docs/evaluation.md"
        )
    return value


def one_text(item: Mapping[str, Any], column: str, at: str) -> str:
    """The one text of a value."""
    found = _value(item, column, at, is_text=True)
    if len(found) != 1:
        raise InputError(f"{at}: {column!r} holds {len(found) or 'no'} texts, expected one")
    return str(found[0])


def id_of(item: Mapping[str, Any], column: str) -> int | None:
    """The whole number of up to 18 digits that a value of a document is; None for all else, as ids may be missing."""
    found = item.get(column)
    if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) <= 18:
        return int(found)
    return None


def _items(location: Location, *, first_rows_only: bool) -> Iterator[dict[str, Any]]:
    for item in _streamed(location) if first_rows_only else _of_document(document(location)):
        if not isinstance(item, dict):
            raise InputError(f"{location} holds {texts.kind_of(item)} where a row is expected: an object of columns")
        yield item


def _of_document(value: Any) -> list[Any]:
    if isinstance(value, dict):
        inner = list(value.values())
        return inner if inner and all(isinstance(item, dict) for item in inner) else [value]
    return value if isinstance(value, list) else [value]


def _streamed(location: Location) -> Iterator[Any]:
    """The items of a list one by one, so that the first rows of a long one cost no more than themselves."""
    decoder = json.JSONDecoder()
    with location.open() as opened:
        text, ended = _more(opened)
        if not text.lstrip("\ufeff \t\r\n").startswith("["):
            yield from _of_document(document(location))
            return
        text = text.lstrip("\ufeff \t\r\n")[1:]
        while True:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                _, end = decoder.raw_decode(text)
            except ValueError as error:
                if ended:
                    raise InputError(f"{location} is not JSON: {error}") from error
                more, ended = _more(opened)
                text += more
                continue
            yield texts.parse_json(text[:end])
            text = text[end:]


def _more(opened: Any) -> tuple[str, bool]:
    """The next characters of a file, whole lines of UTF-8 where there are lines, and whether it has ended."""
    data = opened.read(CHUNK)
    while True:  # a character may be cut
        try:
            return data.decode("utf-8"), len(data) < CHUNK
        except UnicodeDecodeError:
            following = opened.read(1)
            if not following:
                raise InputError(f"{opened} is not UTF-8") from None
            data += following


def _value(item: Mapping[str, Any], column: str, at: str, *, is_text: bool) -> Any:
    found = _at(item, column, at)
    if is_text:
        read = texts.texts_of(found)
        if read.refused:
            raise InputError(f"{at}: {column!r} holds {read.refused}, expected texts or lists of texts")
        return read.texts
    if found is None:
        return None
    if not isinstance(found, str):
        raise InputError(f"{at}: {column!r} holds {texts.kind_of(found)}, expected one text")
    return texts.decode_name(found)[0].strip() or None


def _at(item: Any, column: str, at: str) -> Any:
    """The value of a column; dots lead into objects and lists."""
    if isinstance(item, dict) and column in item:
        return item[column]
    node = item
    for part in column.split("."):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            raise InputError(f"{at} has no {column!r}; it has {', '.join(map(repr, item)) or 'nothing'}")
    return node
