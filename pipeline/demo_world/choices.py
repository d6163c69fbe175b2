"""Composition: a true text beside one that differs in how things belong together.

Colours swap their things, or a relation is turned into its opposite. Both texts name the same things in the same
order, so an encoder that only knows which things are there, or which is the main one, cannot tell the two apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.demo_world.facts import Truth
from pipeline.demo_world.language import article, capital, colored
from pipeline.demo_world.phrases import RELATION_PHRASES

OPPOSITES = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
    "in front of": "behind", "behind": "in front of",
}  # fmt: skip


def choice_rows(files: Sequence[str], truths: Sequence[Truth]) -> list[dict[str, Any]]:
    """Rows of `choices.parquet`: kind, file, right, wrong, pair."""
    return [
        {"kind": kind, "file": file, "right": [right], "wrong": [wrong], "pair": None}
        for file, t in zip(files, truths, strict=True)
        for kind, right, wrong in _choices(t)
    ]


def _choices(t: Truth) -> Iterator[tuple[str, str, str]]:
    main = t["main"]
    for number, other in enumerate(t["others"]):
        if main["color"] and other["color"] and main["color"] != other["color"]:
            exchanged = {**main, "color": other["color"]}, {**other, "color": main["color"]}
            yield "attribute_swap", _both(main, other), _both(*exchanged)
        relation, opposite = other["relation"], OPPOSITES[other["relation"]]
        if (t["seed"] + number) % 2:  # either thing comes first in half of the texts
            yield "relation_opposite", _relation(other, relation, main), _relation(other, opposite, main)
        else:
            yield "relation_opposite", _relation(main, opposite, other), _relation(main, relation, other)


def _both(a: dict[str, Any], b: dict[str, Any]) -> str:
    return f"{capital(article(colored(a)))} and {article(colored(b))}."


def _relation(a: dict[str, Any], relation: str, b: dict[str, Any]) -> str:
    return f"The {a['shape']} is {RELATION_PHRASES[relation]} the {b['shape']}."
