"""Lists of pictures: a table or a JSON document with a column for the picture, and others for texts or classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from evaluation import classes
from evaluation.classes import Classes, ClassNames, Templates
from evaluation.contents import Contents
from evaluation.layouts import places
from evaluation.layouts.places import Places
from evaluation.layouts.rows import Rows
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.ingest.config import Column
from pipeline.storage import Location


class LabelColumn(Section):
    """A column of names of classes, or of their numbers from 0."""

    column: Column = Field(description="its name or number; empty values are pictures whose class cannot be told")
    classes: ClassNames | None = Field(None, description="names, or a set's name; without it, those that occur")
    templates: Templates = Field(("a photo of a {}.",), description="sentences with {}, or a set's name")

    def read(self, values: Mapping[str, str | None], where: Location) -> tuple[Classes, np.ndarray]:
        """The classes, and the class of each picture; `values` are what the column holds, by picture."""
        names = self.classes or tuple(sorted({value for value in values.values() if value is not None}))
        described = classes.described(names, self.templates, f"{where}, column {self.column!r}")
        place = {str(number): number for number in range(len(names))} if self.classes else {}
        place |= {name: number for number, name in enumerate(described.classes)}
        if unknown := next((value for value in values.values() if value is not None and value not in place), None):
            raise InputError(f"{where}: {unknown!r} in column {self.column!r} is no class of the suite")
        return described, np.array(
            [-1 if value is None else place[value] for value in values.values()], dtype=np.int64
        )


class ListLayout(Section):
    """Rows of one picture may be many: their texts are its captions, in the order of the rows and columns."""

    kind: Literal["list"] = "list"
    table: Places = Field(description="parquet, csv, tsv, jsonl or json file; a pattern stands for several")
    image: Column = Field("image", description="column of the picture's name, inside `images`")
    texts: tuple[Column, ...] = Field(("caption",), description="columns of texts, or of lists of them; none: []")
    labels: dict[str, LabelColumn] = Field(default_factory=dict, description="task: the column of its classes")
    images: Places = Field((".",), description="the folder of the pictures")
    suffix: str = Field("", description="what a name ends in where it has no dot, such as .jpg")
    until: str = Field("", description="a name ends before this, such as # in 1000092795.jpg#0")
    join: str | None = Field(None, description="put this between the texts of a row, which are then one caption")
    where: dict[str, str] = Field(default_factory=dict, description="keep rows whose column holds this text")
    limit: int | None = Field(None, ge=1, description="keep the first rows, so many")
    format: Literal[".parquet", ".csv", ".tsv", ".jsonl", ".json"] | None = Field(
        None, description="of files whose names do not tell it"
    )
    header: bool | None = Field(None, description="whether the first line of a csv or tsv names the columns")

    def read(self, root: Location, split: str) -> Contents:  # noqa: ARG002 - `where` says what belongs to a split
        """Pictures in order of their first row."""
        files = places.find_all(root, self.table, "the list")
        columns: dict[str, Column] = {"image": self.image}
        texts = {f"texts {number}": column for number, column in enumerate(self.texts)}
        columns |= texts | {f"label {task}": label.column for task, label in self.labels.items()}
        captions: dict[str, list[str]] = {}
        told: dict[str, dict[str, str | None]] = {task: {} for task in self.labels}
        for row in Rows(files, self.format, self.header, self.where, self.limit).read(columns, set(texts)):
            name = self._name(row["image"], files[0])
            captions.setdefault(name, []).extend(self._texts(row))
            for task, of_task in told.items():
                if of_task.setdefault(name, row[f"label {task}"]) != row[f"label {task}"]:
                    raise InputError(f"{files[0]}: the picture {name!r} has two classes of {task!r}")
        if not captions:
            which = f" where {', '.join(f'{k} is {v}' for k, v in self.where.items())}" if self.where else ""
            raise InputError(f"{files[0]} has no rows{which}")
        without = next((name for name, texts in captions.items() if not texts), None)
        if without is not None and self.texts:
            raise places.no_text(files[0], without)
        labels = {task: label.read(told[task], files[0]) for task, label in self.labels.items()}
        names = tuple(captions)
        pictures, sizes = places.find_pictures(names, places.find(root, self.images, "the folder of pictures"))
        return Contents(
            names,
            pictures,
            sizes,
            {task: described for task, (described, _) in labels.items()},
            {task: class_N for task, (_, class_N) in labels.items()},
            captions=tuple(tuple(texts) for texts in captions.values()) if self.texts else (),
        )

    @model_validator(mode="after")
    def _asks_something(self) -> ListLayout:
        if not self.texts and not self.labels:
            raise ValueError("name columns of texts, or of labels")
        return self

    def _name(self, value: str | None, file: Location) -> str:
        if value is None:
            raise InputError(f"{file}: a row names no picture in column {self.image!r}")
        return named(value, self.suffix, self.until)

    def _texts(self, row: dict[str, Any]) -> list[str]:
        found = [text for setting, texts in row.items() if setting.startswith("texts ") for text in texts]
        return [self.join.join(found)] if self.join is not None and found else found


def named(value: str, suffix: str = "", until: str = "") -> str:
    """The file that a value of a list names."""
    name = value.split(until)[0] if until else value
    return name if "." in name.rpartition("/")[2] else f"{name}{suffix}"
