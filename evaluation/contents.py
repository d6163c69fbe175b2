"""What a data set holds, in whatever form it lies on disk: pictures, labels, captions, choices.

A layout (`evaluation.layouts`) makes one of these of somebody's files, `evaluation.benchmarks` a benchmark of it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from pydantic import Field

from evaluation.classes import Classes
from evaluation.regions import Regions
from pipeline import pictures
from pipeline.config import Section, added
from pipeline.errors import InputError
from pipeline.storage import Location

ALL_CAPTIONS = "all_captions"


class MissingDataError(InputError):
    """Files of a data set are not where they are wanted; what else is measured goes on without it."""


class Picture(Protocol):
    """Where a picture lies: a `Location`, or something inside one. Its text is what messages call it."""

    def read(self) -> bytes:
        """The encoded picture."""


@dataclass(frozen=True)
class Member:
    """A picture in a tar."""

    tar: Location
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The encoded picture."""
        return self.tar.read_range(self.offset, self.size)

    def __str__(self) -> str:
        return f"{self.name} in {self.tar}"


@dataclass(frozen=True)
class Crop:
    """A part of a picture, by its left, top, right and bottom edge in pixels of the upright picture."""

    whole: Picture
    box: tuple[int, int, int, int]

    def read(self) -> bytes:
        """The part, encoded again without loss."""
        buffer = io.BytesIO()
        pictures.decode(self.whole.read())[0].crop(self.box).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def __str__(self) -> str:
        return f"the part {self.box} of {self.whole}"


@dataclass(frozen=True)
class Queries:
    """Texts of one perspective and, as (text, image) index pairs, the images they are true for."""

    perspective: str
    texts: tuple[str, ...]
    pair_text_P: np.ndarray
    pair_image_P: np.ndarray
    protocol: str = ALL_CAPTIONS  # which texts of those that there are
    coco_ids: tuple[int, ...] = ()  # of each text, where all are COCO's captions


@dataclass(frozen=True)
class Choices:
    """Questions of one kind: an image is to score higher with each right text than with any wrong one.

    Where two questions make a pair (`pair_Q` has the same number twice), the image of each is also to score higher
    with its right text than the other's image does.
    """

    kind: str
    image_Q: np.ndarray
    right: tuple[tuple[str, ...], ...]
    wrong: tuple[tuple[str, ...], ...]
    pair_Q: np.ndarray | None = None


@dataclass(frozen=True)
class Contents:
    """Pictures with their names, and what is known of them. `captions` holds the texts of each picture, if any do."""

    files: tuple[str, ...]
    pictures: tuple[Picture, ...]
    sizes: tuple[int, ...]  # bytes of each picture
    classification: Mapping[str, Classes] = field(default_factory=dict)
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)  # task: class index, -1 where it cannot be told
    captions: tuple[tuple[str, ...], ...] = ()
    choices: tuple[Choices, ...] = ()
    segmentation: Mapping[str, Regions] = field(default_factory=dict)
    masks: tuple[Picture, ...] = ()  # of all pictures, or of none
    mask_sizes: tuple[int, ...] = ()  # bytes of each mask
    coco_ids: tuple[int, ...] = ()  # of each picture, where all are COCO's
    caption_ids: tuple[tuple[int, ...], ...] = ()  # of `captions`, where all are COCO's


class Spec(Section):
    """What a benchmark is called, and what its figures mean: the keys of benchmark.yaml.

    `protocols` says of perspectives which of a set's texts are asked, where that is not all of them.
    """

    name: str = Field(min_length=1)
    split: str = "test"
    relevance: str = ""
    classification: dict[str, Classes] = Field(default_factory=dict)
    segmentation: dict[str, Regions] = added({})
    protocols: dict[str, str] = Field(default_factory=dict)


def caption_queries(
    captions: Sequence[Sequence[str]], protocol: str, coco_ids: Sequence[Sequence[int]] = ()
) -> Queries:
    """The captions of each image as queries that are true for it, with their ids where they are COCO's.

    `all_captions` asks every caption, `one_caption` the first of each image, `first_5_captions` the first five. The
    perspective is `caption`, or the protocol where only some captions are asked.
    """
    most = caption_limit(protocol)
    asked = [list(texts)[:most] for texts in captions]
    image_T = np.repeat(np.arange(len(asked)), [len(texts) for texts in asked])
    texts = tuple(text for of_image in asked for text in of_image)
    perspective = "caption" if most is None else protocol
    ids = tuple(number for of_image in coco_ids for number in of_image[:most])
    return Queries(perspective, texts, np.arange(len(texts)), image_T, protocol, ids)


def all_or_none(ids: Sequence[int | None]) -> tuple[int, ...]:
    """The ids of all, or of none where some have none."""
    told = tuple(number for number in ids if number is not None)
    return told if len(told) == len(ids) else ()


def each_or_none(ids: Sequence[Sequence[int | None]]) -> tuple[tuple[int, ...], ...]:
    """The same of ids in groups, none of them empty."""
    told = tuple(all_or_none(group) for group in ids)
    return told if all(told) else ()


def caption_limit(protocol: str) -> int | None:
    """How many captions of an image a protocol asks; None for all. Raises `ValueError` for an unknown protocol."""
    if protocol == ALL_CAPTIONS:
        return None
    number = "1" if protocol == "one_caption" else protocol.removeprefix("first_").removesuffix("_captions")
    if protocol not in ("one_caption", f"first_{number}_captions") or not number.isdecimal() or not int(number):
        raise ValueError("expected all_captions, one_caption, or first_N_captions with a number")
    return int(number)
