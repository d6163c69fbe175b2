"""Pictures in one folder and label masks of the same names in another: VOC, PASCAL Context, ADE20K."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evaluation.contents import Contents, MissingDataError
from evaluation.layouts import places
from evaluation.layouts.places import Places
from evaluation.regions import Regions
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.storage import Location


class MasksLayout(Section):
    """Where both folders are, which names belong to a split, and what is asked; {split} stands for the split."""

    kind: Literal["masks"] = "masks"
    images: Places = Field(("JPEGImages",), description="the folder of pictures")
    masks: Places = Field(("SegmentationClass",), description="the folder of masks, a number a pixel")
    listed: Places | None = Field(
        None, description="a file with a name in each line; without it, all that lie in either folder"
    )
    image_suffix: str = Field(".jpg", description="what a picture's name ends in")
    mask_suffix: str = Field(".png", description="what a mask's name ends in")
    segmentation: dict[str, Regions] = Field(min_length=1, description="what the masks are asked about, by task")

    def read(self, root: Location, split: str) -> Contents:
        """Pictures in the order of the list, or of their names."""
        images, masks = (
            places.find(root, _of(split, where), what)
            for where, what in ((self.images, "the folder of pictures"), (self.masks, "the folder of masks"))
        )
        names = self._listed(root, split) if self.listed else self._present(images, masks)
        files = tuple(f"{name}{self.image_suffix}" for name in names)
        pictures, sizes = places.find_pictures(files, images)
        found, mask_sizes = places.find_pictures([f"{name}{self.mask_suffix}" for name in names], masks)
        return Contents(files, pictures, sizes, segmentation=self.segmentation, masks=found, mask_sizes=mask_sizes)

    def _present(self, images: Location, masks: Location) -> list[str]:
        """Names of either folder, so that one that lacks its other half is missed."""
        found = {file.name.removesuffix(self.image_suffix) for file, _ in images.files(self.image_suffix)}
        found |= {file.name.removesuffix(self.mask_suffix) for file, _ in masks.files(self.mask_suffix)}
        if not found:
            raise MissingDataError(f"there are no masks in {masks}; expected files that end in {self.mask_suffix}")
        return sorted(found)

    def _listed(self, root: Location, split: str) -> list[str]:
        assert self.listed is not None
        location = places.find(root, _of(split, self.listed), "the list of names")
        try:
            lines = location.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{location} is not text ({error}); expected a name in each line") from error
        names = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
        if not names:
            raise InputError(f"{location} lists no names; expected one in each line")
        return names


def _of(split: str, where: Places) -> list[str]:
    return [place.replace("{split}", split) for place in where]
