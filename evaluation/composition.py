"""Composition: does a model tell a right text from one that was changed a little?

An image is scored with its right and its wrong texts. A question is answered if every right text scores above every
wrong one (SugarCrepe, ARO; with two right texts SugarCrepe++). Of two questions that make a pair, Winoground asks
three things: both images find their text (text), both texts find their image (image), all of it (group). Texts or
images of equal score have no order: each outcome is its share of all orders, so that a model that sees no difference
is at chance.
"""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np

GROUPS = ("text", "image", "group")


def answered(right: np.ndarray, wrong: np.ndarray) -> float:
    """The share of orders of equal scores in which all right texts (R,) stand above all wrong ones (W,)."""
    lowest, highest = right.min(), wrong.max()
    if lowest != highest:
        return float(lowest > highest)
    tied_right, tied_wrong = int((right == lowest).sum()), int((wrong == highest).sum())
    return 1 / comb(tied_right + tied_wrong, tied_right)


def chance(right: int, wrong: int) -> float:
    """What a random order of so many texts gives."""
    return 1 / comb(right + wrong, right)


def paired(score_Q22: np.ndarray) -> dict[str, np.ndarray]:
    """The outcomes of pairs by what is asked, (Q,); scores are by image and text, the right ones on the diagonal."""
    found = {group: np.zeros(len(score_Q22)) for group in GROUPS}
    orders = list(permutations(range(4)))
    for order in orders:  # of equal scores, the one that comes later in this order is the higher
        rank_Q22 = np.lexsort((np.tile(order, (len(score_Q22), 1)), score_Q22.reshape(-1, 4)), axis=1).argsort(axis=1)
        for group, outcome_Q in _outcomes(rank_Q22.reshape(-1, 2, 2)).items():
            found[group] += outcome_Q / len(orders)
    return found


def paired_chance() -> dict[str, float]:
    """What scores at random give: 1/4, 1/4 and 1/6."""
    return {group: float(outcome_Q[0]) for group, outcome_Q in paired(np.zeros((1, 2, 2))).items()}


def _outcomes(score_Q22: np.ndarray) -> dict[str, np.ndarray]:
    right_Q2 = score_Q22[:, [0, 1], [0, 1]]
    text_Q: np.ndarray = np.all(right_Q2 > score_Q22[:, [0, 1], [1, 0]], axis=1)
    image_Q: np.ndarray = np.all(right_Q2 > score_Q22[:, [1, 0], [0, 1]], axis=1)
    return {"text": text_Q, "image": image_Q, "group": text_Q & image_Q}
