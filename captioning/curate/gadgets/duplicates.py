"""Gadget `duplicates`: of captions of one image that say the same in the same words, keep one.

Compared after cleaning. Near-duplicates need a high similarity, and with coverage the last caption of a
(perspective, granularity) is spared: short answers to different questions share many words by nature. Of two that are
alike, the one whose slot has fewest captions stays, then the first by caption_id.

Comparing all with all takes memory and time with the square of their number. So of an image no more than
`curate.max_compared` different captions are compared, and what is beyond is dropped; how many is said in a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
from pydantic import Field

from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given
from pipeline.config import Section

DUPLICATE = "duplicate"
TOO_MANY = "too_many"
NEAR_DUPLICATE = "near_duplicate"


class DuplicatesConfig(Section):
    """When two captions of one image count as the same."""

    max_similarity: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="captions that are more alike are near-duplicates; the same words always count as a duplicate",
    )


class Duplicates(Gadget):
    """Drops exact and near-duplicates within an image, for many images at a time."""

    name = "duplicates"
    settings = DuplicatesConfig
    judges = "images"
    origins = ("model", "imported")
    after = "support"
    made_from = ("duplicates", "coverage")
    reads = ("perspective", "granularity")
    reasons: ClassVar[Mapping[str, str]] = {
        DUPLICATE: "another caption of the image has the same words",
        TOO_MANY: "the image has more captions than are compared with each other",
        NEAR_DUPLICATE: "another caption of the image has nearly the same words",
    }

    def __init__(self, config: DuplicatesConfig, *, coverage: bool) -> None:
        self.config, self.coverage = config, coverage

    @classmethod
    def make(cls, given: Given) -> Self:
        return cls(given.settings["duplicates"], coverage=given.settings["coverage"])

    def apply(self, draft: Draft) -> None:
        """Go over every image by itself."""
        repeats = _repeats(draft)
        self._thin_out(draft, repeats)
        for block in draft.blocks():
            open_BM = draft.is_open(block.rows_BM)
            repeats_BM = open_BM & repeats[block.rows_BM]
            same_slot_BMM = _equal(draft.slot_numbers[block.rows_BM])
            self._drop(draft, block.rows_BM[repeats_BM], DUPLICATE)
            near_BM = self._near(block.similarity_BMM, same_slot_BMM, open_BM & ~repeats_BM)
            self._drop(draft, block.rows_BM[near_BM], NEAR_DUPLICATE)

    def _thin_out(self, draft: Draft, repeats: np.ndarray) -> None:
        """Drop what is not compared, of images with too many captions: repeated ones, then those beyond the limit."""
        crowded = [image for image in draft.images if len(draft.open_of(image)) > draft.compared]
        for image in crowded:
            self._drop(draft, np.array([row for row in draft.open_of(image) if repeats[row]]), DUPLICATE)
        if crowded:
            compared = {row for block in draft.blocks() for row in block.rows_BM.ravel().tolist()}
            for image in crowded:
                beyond = [row for row in draft.open_of(image) if row not in compared]
                self._drop(draft, np.array(beyond), TOO_MANY)

    def _drop(self, draft: Draft, rows: np.ndarray, reason: str) -> None:
        for row in rows.tolist():
            draft.drop(row, self, reason)

    def _near(self, similarity_BMM: np.ndarray, same_slot_BMM: np.ndarray, open_BM: np.ndarray) -> np.ndarray:
        """Which captions are too similar to one that stays; all images take their next caption at the same time."""
        left_BM = (same_slot_BMM & open_BM[:, None, :]).sum(axis=2)
        alike_BMM = (similarity_BMM > self.config.max_similarity) & open_BM[:, :, None]
        stay_BM, dropped_BM = np.zeros_like(open_BM), np.zeros_like(open_BM)
        every = np.arange(len(open_BM))
        for column_B in _order(left_BM, open_BM).T:
            near_B = (alike_BMM[every, column_B] & stay_BM).any(axis=1)
            if self.coverage:
                near_B &= left_BM[every, column_B] > 1
            stay_BM[every, column_B] = open_BM[every, column_B] & ~near_B
            dropped_BM[every, column_B] = near_B
            left_BM -= same_slot_BMM[every, column_B] & near_B[:, None]
        return dropped_BM


def _repeats(draft: Draft) -> np.ndarray:
    """Which rows have the words of another one of their image that comes before them; closed ones have none."""
    rows_N = np.fromiter(draft.open_rows(), np.int64)
    image_N = np.repeat(np.arange(len(draft.images)), [len(image) for image in draft.images])[rows_N]
    slots = int(draft.slot_numbers.max(initial=0)) + 1
    slot_N = image_N * slots + draft.slot_numbers[rows_N]
    _, place_N, count_N = np.unique(slot_N, return_inverse=True, return_counts=True)
    spoken_N = _numbered_words(draft)[rows_N]
    order = np.lexsort((rows_N, count_N[place_N], spoken_N, image_N))
    same = np.zeros(len(rows_N), bool)
    same[1:] = (np.diff(spoken_N[order]) == 0) & (np.diff(image_N[order]) == 0)
    repeats = np.zeros(len(draft) + 1, bool)  # the last stands for ABSENT
    repeats[rows_N[order]] = same
    return repeats


def _order(others_BM: np.ndarray, open_BM: np.ndarray) -> np.ndarray:
    """The columns of each image, those first whose slot has fewest captions, closed ones last."""
    return np.where(open_BM, others_BM, np.iinfo(np.int64).max).argsort(axis=1, kind="stable")


def _equal(number_BM: np.ndarray) -> np.ndarray:
    equal_BMM: np.ndarray = number_BM[:, :, None] == number_BM[:, None, :]
    return equal_BMM


def _numbered_words(draft: Draft) -> np.ndarray:
    """A number for every row, equal where the words are; rows that are closed all have one."""
    numbers: dict[tuple[str, ...], int] = {}
    spoken_N = np.full(len(draft), -1, np.int64)
    for row in draft.open_rows():
        spoken_N[row] = numbers.setdefault(draft.words(row), len(numbers))
    return spoken_N


GADGET = Duplicates
