"""Composition: a true text beside one that says the same words of the wrong things.

Every word of the wrong text is true of something in the scene or is the opposite of a true relation, so an encoder
that only knows which things are there cannot tell the two apart.
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
        {"kind": kind, "file": file, "right": [right], "wrong": wrong, "pair": None}
        for file, t in zip(files, truths, strict=True)
        for kind, right, wrong in _choices(t)
    ]


def _choices(t: Truth) -> Iterator[tuple[str, str, list[str]]]:
    main = t["main"]
    for other in t["others"]:
        if main["color"] and other["color"] and main["color"] != other["color"]:
            exchanged = {**main, "color": other["color"]}, {**other, "color": main["color"]}
            yield "attribute_swap", _both(main, other), [_both(*exchanged)]
        relation = other["relation"]
        wrong = _relation(other, OPPOSITES[relation], main), _relation(main, relation, other)
        yield "relation_swap", _relation(other, relation, main), list(wrong)


def _both(a: dict[str, Any], b: dict[str, Any]) -> str:
    return f"{capital(article(colored(a)))} and {article(colored(b))}."


def _relation(a: dict[str, Any], relation: str, b: dict[str, Any]) -> str:
    return f"The {a['shape']} is {RELATION_PHRASES[relation]} the {b['shape']}."
