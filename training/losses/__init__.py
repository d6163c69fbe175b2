"""Named, weighted, logged loss terms over branches (B, H, D), captions (B, M, D) and a mask of present ones (B, M).

A term is a function of `Features`, in a module of its own. `weighted_sum` adds the configured ones up and gives each
value for the log. Shapes in names: B samples of this rank, N of all ranks, H branches, M slots, D width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from training.losses.diversity import diversity
from training.losses.features import Features, gather
from training.losses.free_matching import MATCHINGS, free_matching
from training.losses.many_to_many import m2m
from training.losses.multi_positive import multi_positive
from training.losses.one_to_many import o2m
from training.losses.one_to_one import o2o
from training.losses.served import served
from training.losses.sigmoid import sigmoid
from training.losses.term import TermLoss
from training.losses.text_conditioned import text_conditioned

TERMS: dict[str, Callable[[Features], TermLoss]] = {
    "o2o": o2o,
    "o2m": o2m,
    "m2m": m2m,
    **{name: partial(free_matching, match=match) for name, match in MATCHINGS.items()},
    "served": served,
    "multi_positive": multi_positive,
    "sigmoid": sigmoid,
    "diversity": diversity,
    "text_conditioned": text_conditioned,
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
    found = {name: TERMS[name](features) for name in weights}
    total = sum((weight * found[name].mean for name, weight in weights.items()), start=features.scale.new_zeros(()))
    return Loss(
        total,
        {name: term.mean.detach() for name, term in found.items()},
        {name: term.slot_M for name, term in found.items() if term.slot_M is not None},
    )
