"""Greedy selection within images, for many images at once: what `max_min`, `mmr` and `dpp` have in common.

A criterion says what each caption would add to those selected; the rules are the same for all of them. The first
caption is always taken. While there are slots without a caption, only captions of those slots are looked at, and every
slot gets one, even beyond the limits. After that captions are added until there are `max_captions`, or all that are
left are more similar than `max_similarity` to a selected one. Ties go to the first position, so with captions in the
order of their ids nothing depends on the order of rows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

NOT_SELECTED = -1


class Criterion(Protocol):
    """What it is worth to add a caption, given those that were added."""

    def worth(self) -> np.ndarray:
        """Of every caption, (B, M): the open one with the highest is added next."""

    def add(self, images: np.ndarray, chosen: np.ndarray) -> None:
        """Image `images[n]` has been given its caption `chosen[n]`."""


def greedy(
    criterion: Criterion,
    similarity_BMM: np.ndarray,
    open_BM: np.ndarray,
    slots_BM: np.ndarray | None,
    *,
    max_captions: int,
    max_similarity: float,
) -> np.ndarray:
    """When each caption was selected, (B, M): 0 is the first of its image, `NOT_SELECTED` are the others.

    `open_BM` says which captions there are to choose from, `slots_BM` numbers their slots where every slot is to have
    a caption. Similarities are between 0 and 1, with anything on the diagonal and beside open captions.
    """
    B, M = open_BM.shape
    rank_BM = np.full((B, M), NOT_SELECTED, np.int64)
    nearest_BM = np.full((B, M), -np.inf, similarity_BMM.dtype)  # similarity to the nearest selected caption
    left_BM = open_BM.copy()
    uncovered_BM = open_BM.copy() if slots_BM is not None else np.zeros_like(open_BM)
    for step in range(M):
        within_BM = left_BM & (nearest_BM <= max_similarity) if step < max_captions else np.zeros_like(left_BM)
        eligible_BM = np.where(uncovered_BM.any(axis=1, keepdims=True), uncovered_BM, within_BM)
        images = np.flatnonzero(eligible_BM.any(axis=1))
        if not len(images):
            break
        chosen = np.where(eligible_BM, criterion.worth(), -np.inf)[images].argmax(axis=1)
        rank_BM[images, chosen], left_BM[images, chosen] = step, False
        nearest_BM[images] = np.maximum(nearest_BM[images], similarity_BMM[images, chosen])
        if slots_BM is not None:
            uncovered_BM[images] &= slots_BM[images] != slots_BM[images, chosen][:, None]
        criterion.add(images, chosen)
    return rank_BM


def nearest_selected(similarity_BMM: np.ndarray, rank_BM: np.ndarray) -> np.ndarray:
    """Similarity of every caption to the nearest selected one beside itself, (B, M); 0 where there is none."""
    others_BMM = (rank_BM != NOT_SELECTED)[:, None, :] & ~np.eye(rank_BM.shape[1], dtype=bool)
    nearest_BM: np.ndarray = np.where(others_BMM, similarity_BMM, 0.0).max(axis=2, initial=0.0)
    return nearest_BM
