"""Named, weighted, logged loss terms over branches (B, H, D), captions (B, M, D) and a mask of present ones (B, M).

A term is a function of `Features`. `weighted_sum` adds the configured ones up and returns each value for the log.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from training.losses.features import Features, gather
from training.losses.multi import free_matching, m2m
from training.losses.one_image_vector import o2m, o2o, served

TERMS: dict[str, Callable[[Features], Tensor]] = {
    "o2o": o2o,
    "o2m": o2m,
    "m2m": m2m,
    "free_matching": free_matching,
    "served": served,
}

__all__ = ["TERMS", "Features", "gather", "weighted_sum"]


def weighted_sum(features: Features, weights: Mapping[Any, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, and every term's own value (unweighted, detached) by name."""
    values = {name: TERMS[name](features) for name in weights}
    total = sum((weight * values[name] for name, weight in weights.items()), start=features.scale.new_zeros(()))
    return total, {name: value.detach() for name, value in values.items()}
