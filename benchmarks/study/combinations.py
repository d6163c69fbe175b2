"""Combinations of attributes that no training scene has, so that a test can ask for what was never seen together.

A tenth of all pairs of colour and shape, and a tenth of all relations of two shapes, are held out. Each colour, shape
and relation by itself is as frequent as ever.
"""

from __future__ import annotations

from pipeline.demo_world.facts import Fact, Truth, facts
from pipeline.demo_world.phrases import RELATION_PHRASES
from pipeline.demo_world.vocabulary import COLORS, SHAPES

ONE_IN = 10
_COLORS, _RELATIONS = tuple(COLORS), tuple(RELATION_PHRASES)


def is_held_out(fact: Fact) -> bool:
    """Whether a fact is a combination that only test scenes have."""
    kind, shape, *rest = fact
    if kind == "object color":
        return (3 * SHAPES.index(shape) + _COLORS.index(rest[0])) % ONE_IN == 0
    if kind == "relation":
        relation, other = rest
        places = 7 * SHAPES.index(shape) + 5 * SHAPES.index(other) + 3 * _RELATIONS.index(relation)
        return places % ONE_IN == 0
    return False


def has_held_out(t: Truth) -> bool:
    """Whether a scene has such a combination."""
    return any(is_held_out(fact) for fact in facts(t))
