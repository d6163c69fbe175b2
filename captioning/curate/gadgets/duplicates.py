"""Gadget `duplicates`: of captions of one image that say the same in the same words, keep one.

Compared after cleaning. Near-duplicates need a high similarity, and with coverage the last caption of a
(perspective, granularity) is spared: short answers to different questions share many words by nature. Of two that are
alike, the one whose slot has fewest captions stays, then the first by caption_id.
"""

from __future__ import annotations

import numpy as np

from captioning.curate.config import DuplicatesConfig
from captioning.curate.draft import Draft
from captioning.curate.reasons import Reason


class Duplicates:
    """Drops exact and near-duplicates within an image, for many images at a time."""

    name = "duplicates"
    reads = ("perspective", "granularity")
    reasons = (Reason.DUPLICATE, Reason.NEAR_DUPLICATE)

    def __init__(self, config: DuplicatesConfig, *, coverage: bool) -> None:
        self.config, self.coverage = config, coverage

    def apply(self, draft: Draft) -> None:
        """Go over every image by itself."""
        spoken_N = _numbered_words(draft)
        for batch in draft.batches():
            open_BM = draft.is_open(batch.rows_BM)
            same_slot_BMM = _equal(draft.slot_numbers[batch.rows_BM])
            repeats_BM = _repeats(_equal(spoken_N[batch.rows_BM]), same_slot_BMM, open_BM)
            self._drop(draft, batch.rows_BM[repeats_BM], Reason.DUPLICATE)
            near_BM = self._near(batch.similarity_BMM, same_slot_BMM, open_BM & ~repeats_BM)
            self._drop(draft, batch.rows_BM[near_BM], Reason.NEAR_DUPLICATE)

    def _drop(self, draft: Draft, rows: np.ndarray, reason: Reason) -> None:
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


def _repeats(same_BMM: np.ndarray, same_slot_BMM: np.ndarray, open_BM: np.ndarray) -> np.ndarray:
    """Which captions have the words of another one that comes before them."""
    order_BM = _order((same_slot_BMM & open_BM[:, None, :]).sum(axis=2), open_BM)
    place_BM = order_BM.argsort(axis=1)
    before_BMM = place_BM[:, None, :] < place_BM[:, :, None]
    found_BM: np.ndarray = (same_BMM & before_BMM & open_BM[:, None, :]).any(axis=2) & open_BM
    return found_BM


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
