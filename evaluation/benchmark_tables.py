"""The tables of a benchmark folder: what their columns may hold, checked before anything is encoded.

Texts are texts by `pipeline.texts`. Each column takes what has one plain meaning, and all else is refused by name:

    query_id        anything, once; never null
    file            a text, once; null is no name. Names match whichever way their letters and slashes are encoded
    (a task)        the name of a class, in whichever Unicode form, or its number from 0, or null. Numbers that are
                    themselves names of classes ("0" to "9") count as those; where both readings fit and differ,
                    neither is taken. Classes of one name can be told apart by number only
    perspective     a text, never null
    text            a text, or a list of texts: each of them is a query
    relevant        the files that the text is true for: a list, or one text
    kind            what a question of choices.parquet is about: a text, never null; its image's `file` likewise
    right, wrong    texts to choose from: a list, or one text
    pair            a number that two questions have that make a pair, or null
    coco_id         of pictures and queries, may be left out: COCO's number of a picture or a caption
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.contents import ALL_CAPTIONS, Choices, Queries, all_or_none
from evaluation.names import Names, match
from pipeline import texts
from pipeline.errors import InputError
from pipeline.storage import Location

COCO_ID = "coco_id"


class BenchmarkTable:
    """Columns of a Parquet file. Raises `InputError` if one is missing, there twice, or cannot be read."""

    def __init__(self, location: Location, columns: Sequence[str], optional: Sequence[str] = ()) -> None:
        self.location = location
        try:
            with location.open_arrow() as handle:
                file = pq.ParquetFile(handle)
                names = file.schema_arrow.names
                if missing := sorted(set(columns) - set(names)):
                    raise InputError(f"{location} has columns {names}, but {', '.join(missing)} is missing")
                if repeated := [name for name in columns if names.count(name) > 1]:
                    raise InputError(f"{location} has the column {repeated[0]!r} more than once")
                columns = [*columns, *(name for name in optional if name in names and name not in columns)]
                self._columns = {name: file.read(columns=[name])[name] for name in columns}
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{location} cannot be read as Parquet: {error}") from error

    def values(self, name: str) -> list[Any]:
        """The values of a column, as Python has them."""
        try:
            found: list[Any] = self._columns[name].to_pylist()
        except (ValueError, OverflowError, pa.ArrowException) as error:  # texts that are no UTF-8, dates in the year 0
            raise self.refused(name, f"values that cannot be read ({error})") from error
        return found

    def ids(self, name: str) -> list[int | None]:
        """Whole numbers of a column that may be left out, as may any of its values."""
        found = self.values(name) if name in self._columns else []
        if any(not isinstance(value, int | None) or isinstance(value, bool) for value in found):
            raise self.refused(name, "what is no whole number", "whole numbers or null")
        return found

    def refused(self, column: str, found: str, expected: str = "texts") -> InputError:
        """The error of a column that holds something else."""
        return InputError(f"{self.location}: the column {column!r} holds {found}, expected {expected}")


def files(labels: BenchmarkTable, present: Sequence[str]) -> tuple[str, ...]:
    """The images that are measured, by the names that they have in the folder, where `present` are."""
    named = [_one_text(labels, "file", row, value) for row, value in enumerate(labels.values("file"), 1)]
    if not named:
        raise InputError(f"{labels.location} lists no images")
    images = match(named, present)
    if images.absent:
        raise InputError(
            f"{len(images.absent)} of {len(named)} images of {labels.location.parent} are missing, the first is "
            f"{images.absent[0]!r}"
        )
    if images.repeated:
        raise InputError(
            f"{labels.location} lists {images.repeated[0]!r} more than once; one row per image is expected"
        )
    return images.found


def coco_ids(labels: BenchmarkTable) -> tuple[int, ...]:
    """COCO's numbers of the images, where all have one."""
    return all_or_none(labels.ids(COCO_ID))


def class_indices(labels: BenchmarkTable, task: str, classes: Sequence[str]) -> np.ndarray:
    """The class of each image, -1 where it cannot be told."""
    values = [_label(labels, task, value) for value in labels.values(task)]
    numbers = {value for value in values if isinstance(value, int)}
    classes = [unicodedata.normalize("NFC", name) for name in classes]
    index: dict[Any, int] = {name: place for place, name in enumerate(classes)}
    repeated = [name for name, times in Counter(classes).items() if times > 1]
    if numbers:
        index = _numbered(labels, task, numbers, classes)
    elif repeated:
        raise InputError(
            f"{labels.location}: task {task!r} has {repeated[0]!r} twice among its classes, and labels go by name; "
            f"give each class a name of its own, or label by number (0 to {len(classes) - 1})"
        )
    if unknown := sorted({str(value) for value in values if value is not None and value not in index}):
        raise InputError(f"{labels.location}: {unknown[0]!r} is no class of task {task!r} in benchmark.yaml")
    found = np.array([-1 if value is None else index[value] for value in values], dtype=np.int64)
    if (found < 0).all():
        raise InputError(f"{labels.location}: no image has a label for task {task!r}")
    return found


def _numbered(labels: BenchmarkTable, task: str, numbers: set[int], classes: Sequence[str]) -> dict[int, int]:
    """What class each number means: the one of that name, if all are names, or the one at that place."""
    names = {name: place for place, name in enumerate(classes) if classes.count(name) == 1}
    by_name = {number: names[str(number)] for number in numbers if str(number) in names}
    by_place = {number: number for number in numbers if 0 <= number < len(classes)}
    both = len(by_name) == len(by_place) == len(numbers)
    if both and by_name != by_place:
        number = next(number for number in sorted(numbers) if by_name[number] != number)
        raise InputError(
            f"{labels.location}: the label {number} of task {task!r} can be the class {str(number)!r} or the class at "
            f"place {number} (from 0), {classes[number]!r}; write names of classes as texts"
        )
    return by_name if len(by_name) == len(numbers) else by_place


def _label(labels: BenchmarkTable, task: str, value: Any) -> str | int | None:
    """A class's name or number; None where there is none."""
    if isinstance(value, float) and value.is_integer():  # what pandas makes of numbers where some are missing
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    expected = "the name of one class, or its number"
    if isinstance(value, float) and value == value:  # NaN differs from itself
        raise labels.refused(task, f"{value:g}", expected)
    names = _all_texts(labels, task, value, expected)
    if len(names) > 1:
        raise labels.refused(task, "a list", expected)
    return unicodedata.normalize("NFC", names[0]) if names else None


def queries(location: Location, names: Sequence[str], protocols: Mapping[str, str]) -> tuple[Queries, ...]:
    """Texts and what they are true for, by perspective; `names` are the images.

    `protocols` says of perspectives which of a set's texts they are, where that is not all of them.
    """
    table = BenchmarkTable(location, ["query_id", "perspective", "text", "relevant"], [COCO_ID])
    ids = [str(value) for value in table.values("query_id") if value is not None]
    if len(ids) < len(table.values("query_id")):
        raise table.refused("query_id", "null", "an id in each row")
    if len(set(ids)) < len(ids):
        raise InputError(f"{location}: {len(ids) - len(set(ids))} query_id values occur more than once")
    images, grouped = Names(names), dict[str, list[tuple[str, list[int], int | None]]]()
    coco = table.ids(COCO_ID) or [None] * len(ids)
    columns = zip(ids, *(table.values(name) for name in ("perspective", "text", "relevant")), coco, strict=True)
    for query, perspective, text, relevant, number in columns:
        asked = _all_texts(table, "text", text)
        wanted = _all_texts(table, "relevant", relevant)
        if not asked or not wanted:
            raise InputError(f"{location}: query {query!r} has no text, or no image it is true for")
        found = [images.find(file) for file in wanted]
        if None in found:
            strange = wanted[found.index(None)]
            raise InputError(f"{location}: query {query!r} names {strange!r}, which is not in labels.parquet")
        right = sorted({place for place in found if place is not None})
        group = grouped.setdefault(_one_text(table, "perspective", query, perspective), [])
        group += [(one, right, number) for one in asked]
    return tuple(_queries(name, rows, protocols.get(name, ALL_CAPTIONS)) for name, rows in grouped.items())


def _queries(perspective: str, rows: Sequence[tuple[str, Sequence[int], int | None]], protocol: str) -> Queries:
    return Queries(
        perspective,
        tuple(text for text, _, _ in rows),
        np.repeat(np.arange(len(rows)), [len(right) for _, right, _ in rows]),
        np.concatenate([np.array(right, dtype=np.int64) for _, right, _ in rows]),
        protocol,
        all_or_none([number for _, _, number in rows]),
    )


def choices(location: Location, names: Sequence[str]) -> tuple[Choices, ...]:
    """Questions with right and wrong texts, by kind; `names` are the images."""
    table = BenchmarkTable(location, ["kind", "file", "right", "wrong", "pair"])
    images, grouped = Names(names), dict[str, list[tuple[int, tuple[str, ...], tuple[str, ...], int | None]]]()
    columns = zip(*(table.values(name) for name in ("kind", "file", "right", "wrong", "pair")), strict=True)
    for row, (kind, file, right, wrong, pair) in enumerate(columns, 1):
        image = images.find(_one_text(table, "file", row, file))
        if image is None:
            raise InputError(f"{location}: row {row} names {file!r}, which is not in labels.parquet")
        texts_of = _all_texts(table, "right", right), _all_texts(table, "wrong", wrong)
        if not all(texts_of):
            raise InputError(f"{location}: row {row} lacks a right or a wrong text")
        if pair is not None and not isinstance(pair, int):
            raise table.refused("pair", "what is no number", "whole numbers")
        grouped.setdefault(_one_text(table, "kind", row, kind), []).append((image, *texts_of, pair))
    return tuple(_choices(location, kind, rows) for kind, rows in grouped.items())


def _choices(
    location: Location, kind: str, rows: Sequence[tuple[int, tuple[str, ...], tuple[str, ...], int | None]]
) -> Choices:
    image_Q, right, wrong, pair = zip(*rows, strict=True)
    told = [number for number in pair if number is not None]
    if told and (len(told) < len(rows) or set(Counter(told).values()) != {2}):
        raise InputError(
            f"{location}: questions of {kind!r} are in pairs, but not each number of `pair` is there twice"
        )
    return Choices(kind, np.array(image_Q), right, wrong, np.array(told) if told else None)


def with_copies(queries: Queries, original_N: np.ndarray) -> Queries:
    """The queries, true also for the copies of the images that they are true for."""
    order_N = np.argsort(original_N, kind="stable")  # the copies of an image are next to each other
    count_N = np.bincount(original_N, minlength=len(original_N))
    if count_N.max() == 1:
        return queries
    begin_N = np.cumsum(count_N) - count_N
    pair_PP = np.unique(np.stack([queries.pair_text_P, original_N[queries.pair_image_P]]), axis=1)
    times_P = count_N[pair_PP[1]]
    within = np.arange(times_P.sum()) - np.repeat(np.cumsum(times_P) - times_P, times_P)
    image_P = order_N[np.repeat(begin_N[pair_PP[1]], times_P) + within]
    return replace(queries, pair_text_P=np.repeat(pair_PP[0], times_P), pair_image_P=image_P)


def _one_text(table: BenchmarkTable, column: str, row: int | str, value: Any) -> str:
    """The text of a cell that has to have one; `row` is its number, or the id that it goes by."""
    found = _all_texts(table, column, value)
    if len(found) != 1:
        raise table.refused(column, f"{len(found) or 'no'} texts in row {row}", "one")
    return found[0]


def _all_texts(table: BenchmarkTable, column: str, value: Any, expected: str = "texts") -> tuple[str, ...]:
    found = texts.texts_of(value)
    if found.refused:
        raise table.refused(column, found.refused, expected)
    if texts.NOT_TEXT in found.faults:
        raise table.refused(column, f"bytes that are {texts.NOT_TEXT}", expected)
    return found.texts
