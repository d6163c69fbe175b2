"""Karpathy's splits: `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from evaluation.contents import Contents, all_or_none, each_or_none
from evaluation.layouts import places, rows
from evaluation.layouts.places import Places
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.storage import Location

ALL = "all"


class KarpathyLayout(Section):
    """One file with the images of all splits, each with its sentences as people wrote them (`raw`)."""

    kind: Literal["karpathy"] = "karpathy"
    annotations: Places = Field(description="the JSON file")
    images: Places = Field(description="the folder that `filepath` and `filename` begin at")

    def read(self, root: Location, split: str) -> Contents:
        """The images of a split, or of all of them, in the order of the file."""
        location = places.find(root, self.annotations, "Karpathy's file")
        data = rows.document(location)
        listed = rows.records(data.get("images") if isinstance(data, dict) else None, location, "images")
        chosen = [image for image in listed if split in (ALL, image.get("split"))]
        if not chosen:
            splits = sorted({str(image.get("split")) for image in listed})
            raise InputError(f"{location} has no images of the split {split!r}; it has {', '.join(splits)}")
        names = tuple(_name(image, location) for image in chosen)
        pictures, sizes = places.find_pictures(names, places.find(root, self.images, "the folder of pictures"))
        return Contents(
            names,
            pictures,
            sizes,
            captions=tuple(_captions(image, location) for image in chosen),
            coco_ids=(images := all_or_none([rows.id_of(image, "cocoid") for image in chosen])),
            caption_ids=each_or_none([_caption_ids(image) for image in chosen]) if images else (),
        )


def _name(image: dict[str, Any], location: Location) -> str:
    name = rows.one_text(image, "filename", str(location))
    return f"{rows.one_text(image, 'filepath', str(location))}/{name}" if "filepath" in image else name


def _captions(image: dict[str, Any], location: Location) -> tuple[str, ...]:
    sentences = rows.records(image.get("sentences"), location, "sentences")
    if not sentences:
        raise places.no_text(location, str(image["filename"]))
    return tuple(rows.one_text(sentence, "raw", str(location)) for sentence in sentences)


def _caption_ids(image: dict[str, Any]) -> list[int | None]:
    """Of a COCO picture `sentid` is COCO's number of the caption."""
    return [rows.id_of(sentence, "sentid") for sentence in image["sentences"]]
