"""Scores the demo VLM's answers against the exact truth of the scenes."""

from __future__ import annotations

import json
from typing import Any

from pipeline.demo_world.language import answers
from pipeline.demo_world.vocabulary import BACKGROUNDS, COLORS, SHAPES, STYLES

Truth = dict[str, Any]


def is_true(t: Truth, prompt_id: str, text: str) -> bool:
    """Whether the text is, to the letter, one of the true answers; for JSON, whether every value is."""
    if prompt_id != "everything":
        return text in answers(t, prompt_id)
    said = parse_json(text)
    expected = json.loads(answers(t, "everything")[0])
    return said is not None and said.keys() == expected.keys() and all(is_true(t, key, said[key]) for key in said)


def parse_json(text: str) -> dict[str, str] | None:
    """The JSON object in the text, or None where it is none or holds anything but strings."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) and all(isinstance(value, str) for value in said.values()) else None


def _named(text: str, words: tuple[str, ...]) -> set[str]:
    """Which of the words the text holds; where one contains another, the longer one only."""
    lowered = f" {text.lower().replace(',', ' ').replace('.', ' ').replace(':', ' ').replace(';', ' ')} "
    named = {word for word in words if f" {word} " in lowered}
    return {word for word in named if not any(word != longer and word in longer for longer in named)}


def bars(t: Truth, said: dict[str, str]) -> dict[str, bool | None]:
    """The five headline scores of one image from the answers to main_object, background, style and nouns.

    color is None where the style shows none.
    """
    main = t["main"]
    nouns = {main["shape"], *(other["shape"] for other in t["others"]), t["background"]}
    return {
        "main shape": _named(said["main_object"], SHAPES) == {main["shape"]},
        "main colour": _named(said["main_object"], tuple(COLORS)) == {main["color"]} if main["color"] else None,
        "background": _named(said["background"], tuple(BACKGROUNDS)) == {t["background"]},
        "style": _named(said["style"], tuple(STYLES)) == {t["style"]},
        "nouns exact": set(said["nouns"].split(", ")) == nouns,
    }
