"""Pictures with right and wrong texts to choose from: SugarCrepe, SugarCrepe++, ARO; in pairs: Winoground."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from evaluation.contents import Choices, Contents, Crop, Picture
from evaluation.layouts import places
from evaluation.layouts.listed import named
from evaluation.layouts.places import Places
from evaluation.layouts.rows import Rows
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.storage import Location

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Question:
    file: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    box: Box | None = None
    pair: int | None = None

    @property
    def name(self) -> str:
        """What tells its picture from others: parts of one file are pictures of their own."""
        return self.file if self.box is None else f"{self.file}@{','.join(map(str, self.box))}"


class ChoicesLayout(Section):
    """A table for each kind of question. Columns say the picture and the texts, or two of each that make a pair."""

    kind: Literal["choices"] = "choices"
    tables: dict[str, Places] = Field(
        min_length=1, description="kind of question: its parquet, csv, jsonl or json file"
    )
    images: Places = Field((".",), description="the folder of the pictures")
    image: str = Field("image", description="column of the picture's name")
    right: tuple[str, ...] = Field((), description="columns of right texts")
    wrong: tuple[str, ...] = Field((), description="columns of wrong texts, or of lists of them")
    box: tuple[str, str, str, str] | None = Field(
        None, description="columns of the part of the picture that is meant: left, top, width, height"
    )
    paired_images: tuple[str, str] | None = Field(None, description="columns of the two pictures of a pair")
    paired_texts: tuple[str, str] | None = Field(None, description="columns of their texts, in the same order")
    suffix: str = Field("", description="what a name ends in where it has no dot, such as .png")

    @model_validator(mode="after")
    def _columns(self) -> ChoicesLayout:
        if (self.paired_images is None) != (self.paired_texts is None):
            raise ValueError("paired_images and paired_texts come together")
        if (self.paired_images is None) != bool(self.right and self.wrong):
            raise ValueError("give columns of right and wrong texts, or those of paired images and texts")
        return self

    def read(self, root: Location, split: str) -> Contents:  # noqa: ARG002 - a table is a split
        """The pictures that questions are about, and the questions by kind."""
        asked = {kind: self._questions(root, kind) for kind in self.tables}
        files: dict[str, _Question] = {question.name: question for of in asked.values() for question in of}
        folder = places.find(root, self.images, "the folder of pictures")
        wholes, sizes = places.find_pictures([question.file for question in files.values()], folder)
        pictures = [_part(whole, question.box) for whole, question in zip(wholes, files.values(), strict=True)]
        place = {name: number for number, name in enumerate(files)}
        choices = tuple(_choices(kind, questions, place) for kind, questions in asked.items())
        return Contents(tuple(files), tuple(pictures), sizes, choices=choices)

    def _questions(self, root: Location, kind: str) -> list[_Question]:
        found = places.find_all(root, self.tables[kind], f"the table of {kind.replace('_', ' ')}")
        rows = enumerate(Rows(found).read(*self._asked()), 1)
        asked = [
            question for number, row in rows for question in self._of_row(row, number, f"{found[0]}, row {number}")
        ]
        if not asked:
            raise InputError(f"{found[0]} has no rows")
        return asked

    def _asked(self) -> tuple[dict[str, Any], set[str]]:
        """The columns by setting, and which of the settings are texts."""
        if self.paired_images is not None and self.paired_texts is not None:
            images = {f"image {number}": column for number, column in enumerate(self.paired_images)}
            texts = {f"text {number}": column for number, column in enumerate(self.paired_texts)}
            return images | texts, set(texts)
        texts = {f"right {column}": column for column in self.right} | {
            f"wrong {column}": column for column in self.wrong
        }
        boxes = dict(zip(("left", "top", "width", "height"), self.box or (), strict=False))
        return {"image": self.image} | texts | boxes, set(texts)

    def _of_row(self, row: Mapping[str, Any], number: int, at: str) -> Iterator[_Question]:
        if self.paired_images is not None:
            texts = [self._texts(row, f"text {side}", at) for side in (0, 1)]
            for side in (0, 1):
                yield _Question(self._file(row[f"image {side}"], at), texts[side], texts[1 - side], pair=number)
            return
        box = None
        if self.box is not None:
            left, top, width, height = (_number(row[edge], at) for edge in ("left", "top", "width", "height"))
            box = (left, top, left + width, top + height)
        right, wrong = self._texts(row, "right ", at), self._texts(row, "wrong ", at)
        yield _Question(self._file(row["image"], at), right, wrong, box)

    def _texts(self, row: Mapping[str, Any], settings: str, at: str) -> tuple[str, ...]:
        found = tuple(text for setting, texts in row.items() if setting.startswith(settings) for text in texts)
        if not found:
            raise InputError(f"{at} lacks a text to choose from")
        return found

    def _file(self, value: str | None, at: str) -> str:
        if value is None:
            raise InputError(f"{at} names no picture")
        return named(value, self.suffix)


def _part(whole: Picture, box: Box | None) -> Picture:
    return whole if box is None else Crop(whole, box)


def _number(value: str | None, at: str) -> int:
    if value is None or not value.isdecimal():
        raise InputError(f"{at}: {value!r} is no edge of a part; expected whole pixels")
    return int(value)


def _choices(kind: str, questions: Sequence[_Question], place: Mapping[str, int]) -> Choices:
    pairs = [question.pair for question in questions if question.pair is not None]
    return Choices(
        kind,
        np.array([place[question.name] for question in questions], dtype=np.int64),
        tuple(question.right for question in questions),
        tuple(question.wrong for question in questions),
        np.array(pairs, dtype=np.int64) if pairs else None,
    )
