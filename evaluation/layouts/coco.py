"""COCO's captions: `annotations/captions_val2017.json`, which lists images and annotations, beside the pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from evaluation.contents import Contents, all_or_none, each_or_none
from evaluation.layouts import places, rows
from evaluation.layouts.places import Places
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.storage import Location


class CocoLayout(Section):
    """Images by id, and captions that name their image's id; captions stay in the order of the file."""

    kind: Literal["coco"] = "coco"
    annotations: Places = Field(description="the JSON file")
    images: Places = Field(description="the folder of the pictures")

    def read(self, root: Location, split: str) -> Contents:  # noqa: ARG002 - a file is a split
        """The pictures that have captions, in the order in which the file lists them."""
        location = places.find(root, self.annotations, "the captions file")
        data = rows.document(location)
        part = data if isinstance(data, dict) else {}
        listed = rows.records(part.get("images"), location, "images")
        files = {
            rows.one_text(image, "id", str(location)): rows.one_text(image, "file_name", str(location))
            for image in listed
        }
        number = {rows.one_text(image, "id", str(location)): rows.id_of(image, "id") for image in listed}
        captions: dict[str, list[str]] = {image: [] for image in files}
        ids: dict[str, list[int | None]] = {image: [] for image in files}
        for annotation in rows.records(part.get("annotations"), location, "annotations"):
            image = rows.one_text(annotation, "image_id", str(location))
            if image not in captions:
                raise InputError(f"{location}: a caption names the image {image}, which the file does not list")
            captions[image].append(rows.one_text(annotation, "caption", str(location)))
            ids[image].append(rows.id_of(annotation, "id"))
        told = [image for image, texts in captions.items() if texts]
        if not told:
            raise InputError(f"{location} lists no image with a caption")
        names = tuple(files[image] for image in told)
        pictures, sizes = places.find_pictures(names, places.find(root, self.images, "the folder of pictures"))
        return Contents(
            names,
            pictures,
            sizes,
            captions=tuple(tuple(captions[image]) for image in told),
            coco_ids=all_or_none([number[image] for image in told]),
            caption_ids=each_or_none([ids[image] for image in told]),
        )
