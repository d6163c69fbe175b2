"""Named, weighted, logged loss terms over branches (B, H, D), captions (B, M, D) and a mask of present ones (B, M).

A term is a function of `Features`, in a file of its own in `terms`, and named as the file is. `weighted_sum` adds the
configured ones up and gives each value for the log. Shapes in names: B samples of this rank, N of all ranks, H
branches, M slots, D width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import Tensor

from training.config import TERM_NAMES
from training.losses.features import Features, gather
from training.losses.term import TermLoss

TERMS: dict[str, Callable[[Features], TermLoss]] = {
    name: getattr(import_module(f"training.losses.terms.{name}"), name) for name in TERM_NAMES
}

__all__ = ["TERMS", "Features", "Loss", "TermLoss", "gather", "weighted_sum"]


@dataclass(frozen=True)
class Loss:
    """What to minimise, and for the log each term's own value, unweighted and detached: all, and by slot (M,)."""

    total: Tensor
    terms: dict[str, Tensor]
    by_slot: dict[str, Tensor]


def weighted_sum(features: Features, weights: Mapping[Any, float]) -> Loss:
    """The loss of a step. Raises ConfigError where a term cannot work with so many branches or slots."""
    of_terms = {name: TERMS[name](features) for name in weights}
    total = sum((weight * of_terms[name].mean for name, weight in weights.items()), start=features.scale.new_zeros(()))
    return Loss(
        total,
        {name: term.mean.detach() for name, term in of_terms.items()},
        {name: term.slot_M for name, term in of_terms.items() if term.slot_M is not None},
    )
