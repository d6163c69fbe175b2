"""Lists of pictures with texts: a table or a JSON document with a column for the picture and one or more for texts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from evaluation.contents import Contents
from evaluation.layouts import places
from evaluation.layouts.places import Places
from evaluation.layouts.rows import Rows
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.ingest.config import Column
from pipeline.storage import Location


class ListLayout(Section):
    """Rows of one picture may be many: their texts are its captions, in the order of the rows and columns."""

    kind: Literal["list"] = "list"
    table: Places = Field(description="parquet, csv, tsv, jsonl or json file; a pattern stands for several")
    image: Column = Field("image", description="column of the picture's name, inside `images`")
    texts: tuple[Column, ...] = Field(("caption",), min_length=1, description="columns of texts, or of lists of them")
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
        columns |= {f"texts {number}": column for number, column in enumerate(self.texts)}
        captions: dict[str, list[str]] = {}
        for row in Rows(files, self.format, self.header, self.where, self.limit).read(
            columns, set(columns) - {"image"}
        ):
            captions.setdefault(self._name(row["image"], files[0]), []).extend(self._texts(row))
        if not captions:
            which = f" where {', '.join(f'{k} is {v}' for k, v in self.where.items())}" if self.where else ""
            raise InputError(f"{files[0]} has no rows{which}")
        if without := [name for name, texts in captions.items() if not texts]:
            raise places.no_text(files[0], without[0])
        names = tuple(captions)
        pictures, sizes = places.find_pictures(names, places.find(root, self.images, "the folder of pictures"))
        return Contents(names, pictures, sizes, captions=tuple(tuple(texts) for texts in captions.values()))

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
