"""Probes: how well classes can be read from frozen image vectors by a linear classifier.

Logistic regression on normalised vectors by scikit-learn's L-BFGS, as in CLIP's paper: the strength of its L2 penalty
is chosen on images that are held back from the training split, then the classifier is fitted on all of it. Few-shot
probes see k images of each class, drawn by seed, and choose the strength on k others; what is right is the mean over
draws.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

STRENGTHS = tuple(10.0**power for power in range(-1, 6))  # of C, the inverse of the penalty
HELD_BACK = 0.2  # of the training images, to choose the strength on
CHOOSING = 10_000  # images that the strength is chosen with, at most
DRAWS = 3  # of a few-shot probe
ITERATIONS, PATIENCE = 1000, 2


@dataclass(frozen=True)
class Split:
    """Vectors (N, D) with their classes (N,)."""

    vector_ND: np.ndarray
    class_N: np.ndarray

    def take(self, index: np.ndarray) -> Split:
        return Split(self.vector_ND[index], self.class_N[index])


def linear(train: Split, test: Split, *, seed: int) -> np.ndarray:
    """Whether each test image is recognised, (N,), by a classifier that saw the training images."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(train.class_N))[:CHOOSING]
    cut = max(1, round(HELD_BACK * len(order)))
    strength = _strength(train.take(order[cut:]), train.take(order[:cut]))
    return _right(train, test, strength)


def few_shot(train: Split, test: Split, shots: int, *, seed: int) -> np.ndarray:
    """The share of draws in which each test image is recognised, (N,), from `shots` images of each class."""
    right = []
    for draw in range(DRAWS):
        seen, others = _drawn(train.class_N, shots, np.random.default_rng([seed, shots, draw]))
        strength = _strength(train.take(seen), train.take(others))
        right.append(_right(train.take(seen), test, strength))
    return np.mean(right, axis=0)


def smallest_class(train: Split) -> int:
    """How many images the rarest class of a split has."""
    return int(np.unique(train.class_N, return_counts=True)[1].min())


def _drawn(class_N: np.ndarray, shots: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """So many images of each class, and as many others to choose with, where there are others."""
    order = rng.permutation(len(class_N))
    seen, others = list[np.ndarray](), list[np.ndarray]()
    for one in np.unique(class_N):
        of_class = order[class_N[order] == one]
        seen.append(of_class[:shots])
        others.append(of_class[shots : 2 * shots])
    held = np.concatenate(others)
    return np.concatenate(seen), held if len(held) else np.concatenate(seen)


def _strength(fitted: Split, held: Split) -> float:
    """The penalty that does best on images that were not fitted, from the strongest on; of equal ones the strongest.

    Each fit begins where the last one ended, and weaker penalties are left out once two did no better than the best:
    those take longest.
    """
    if _one_class(fitted):
        return STRENGTHS[0]
    classifier, best, found, no_better = _classifier(warm=True), STRENGTHS[0], -1.0, 0
    for strength in STRENGTHS:
        _fit(classifier.set_params(C=strength), fitted)
        score = float((classifier.predict(held.vector_ND) == held.class_N).mean())
        if score > found:
            best, found, no_better = strength, score, 0
        else:
            no_better += 1
        if no_better == PATIENCE:
            break
    return best


def _right(fitted: Split, asked: Split, strength: float) -> np.ndarray:
    if _one_class(fitted):  # nothing to tell apart: it says the one class that it saw
        return np.asarray(asked.class_N == fitted.class_N[0])
    classifier = _fit(_classifier().set_params(C=strength), fitted)
    return np.asarray(classifier.predict(asked.vector_ND) == asked.class_N)


def _one_class(split: Split) -> bool:
    return len(np.unique(split.class_N)) < 2


def _classifier(*, warm: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=ITERATIONS, warm_start=warm)


def _fit(classifier: Any, split: Split) -> Any:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # a weak penalty need not converge; it is then judged by what it says
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(split.vector_ND, split.class_N)
