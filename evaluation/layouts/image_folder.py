"""Pictures in a folder for each class, as torchvision's ImageFolder has them."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from evaluation import classes
from evaluation.classes import ClassNames, Templates
from evaluation.contents import Contents, MissingDataError, Picture
from evaluation.layouts import places
from evaluation.layouts.places import Places
from pipeline import picture_kinds
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.ingest.names import suffix_of
from pipeline.storage import Location


class ImageFolderLayout(Section):
    """A class is a folder; its number is the folder's place in the order of names, or of numbers if all are such."""

    kind: Literal["image_folder"] = "image_folder"
    images: Places = Field((".",), description="the folder that holds a folder for each class; {split} is the split")
    classes: ClassNames | dict[str, str] | None = Field(
        None,
        description="names of classes in the order of their folders, or by folder, or a set's name (imagenet); "
        "without it, the folders' own names",
    )
    templates: Templates = Field(("a photo of a {}.",), description="sentences with {}, or a set's name")
    task: str = Field("class", description="what the classes are called together")

    def read(self, root: Location, split: str) -> Contents:
        """All pictures of all classes, by folder and name."""
        here = [place.replace("{split}", split) for place in self.images]
        folder = places.find(root, here, "the folder of classes")
        prefix = folder.uri + "/"
        found = [
            (file.uri.removeprefix(prefix), file, size)
            for file, size in folder.files(recursive=True)
            if suffix_of(file.name) in picture_kinds.SUFFIXES
        ]
        inside = [item for item in found if "/" in item[0]]
        if not inside:
            raise MissingDataError(f"there are no folders of pictures in {folder}; expected one for each class")
        folders = _in_order({name.split("/")[0] for name, _, _ in inside})
        number = {name: place for place, name in enumerate(folders)}
        label_N = np.array([number[name.split("/")[0]] for name, _, _ in inside], dtype=np.int64)
        pictures: tuple[Picture, ...] = tuple(file for _, file, _ in inside)
        return Contents(
            tuple(name for name, _, _ in inside),
            pictures,
            tuple(size for _, _, size in inside),
            {self.task: classes.described(self._names(folders, folder), self.templates, str(folder))},
            {self.task: label_N},
        )

    def _names(self, folders: list[str], folder: Location) -> tuple[str, ...]:
        if self.classes is None:
            return tuple(name.replace("_", " ") for name in folders)
        if isinstance(self.classes, dict):
            if unknown := [name for name in folders if name not in self.classes]:
                raise InputError(f"the folder {unknown[0]!r} of {folder} is not among the suite's classes")
            return tuple(self.classes[name] for name in folders)
        if len(folders) != len(self.classes):
            raise InputError(
                f"{folder} has {len(folders):,} folders, but the suite names {len(self.classes):,} classes in the "
                "order of folders; use all folders, or give the names by folder"
            )
        return tuple(self.classes)


def _in_order(folders: set[str]) -> list[str]:
    return sorted(folders, key=int if all(name.isdecimal() for name in folders) else str)
