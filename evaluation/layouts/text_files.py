"""A folder of pictures and a folder of texts of the same names, as Urban1k has them: image/7.jpg, caption/7.txt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evaluation.contents import Contents, MissingDataError, Picture
from evaluation.layouts import places
from evaluation.layouts.places import Places
from pipeline import picture_kinds, texts
from pipeline.config import Section
from pipeline.ingest.names import stem_of, suffix_of
from pipeline.storage import Location


class TextFilesLayout(Section):
    """Every picture has a text file of its name."""

    kind: Literal["text_files"] = "text_files"
    images: Places = Field(description="the folder of the pictures")
    texts: Places = Field(description="the folder of the texts")
    lines: Literal["first", "all"] = Field("all", description="how much of a file is the caption")

    def read(self, root: Location, split: str) -> Contents:  # noqa: ARG002 - a folder is a split
        """The pictures by name, numbers in their order."""
        folder = places.find(root, self.images, "the folder of pictures")
        beside = places.find(root, self.texts, "the folder of texts")
        found = [(file, size) for file, size in folder.files() if suffix_of(file.name) in picture_kinds.SUFFIXES]
        if not found:
            raise MissingDataError(f"there are no pictures in {folder}")
        found.sort(key=lambda item: (len(stem_of(item[0].name)), item[0].name))
        names = tuple(file.name for file, _ in found)
        captions = tuple((self._caption(beside / f"{stem_of(name)}.txt", name),) for name in names)
        pictures: tuple[Picture, ...] = tuple(file for file, _ in found)
        return Contents(names, pictures, tuple(size for _, size in found), captions=captions)

    def _caption(self, location: Location, name: str) -> str:
        if not location.exists():
            raise MissingDataError(f"the text of the picture {name} is missing: expected it at {location}")
        text = texts.decode(location.read()).text
        if text is None:
            raise places.no_text(location, name)
        return text.splitlines()[0].strip() if self.lines == "first" else text
