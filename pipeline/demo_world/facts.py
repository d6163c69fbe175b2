"""Which captions are true of which scenes: captions as sets of claims, scenes as sets of facts.

A caption about a background fits many scenes. Retrieval that counts only the scene it was written from would punish
an encoder for being right, so evaluation asks `holds`.
"""

from __future__ import annotations

from typing import Any

from pipeline.demo_world.vocabulary import BACKGROUNDS, COLORS, SHAPES, STYLES

Truth = dict[str, Any]
Fact = tuple[str, ...]


def facts(t: Truth) -> frozenset[Fact]:
    """All that is true of a scene. What a style hides is no fact."""
    main, others = t["main"], t["others"]
    facts: set[Fact] = {
        ("background", t["background"]),
        ("style", t["style"]),
        ("sign", t["sign"] or "none"),
        ("others", str(len(others))),
        ("main", main["shape"]),
        ("main size", main["shape"], t["size"]),
        ("main place", main["shape"], main["place"]),
    }
    if main["color"]:
        facts.add(("main color", main["shape"], main["color"]))
    for thing in (main, *others):
        facts |= {("object", thing["shape"]), ("object place", thing["shape"], thing["place"])}
        if thing["color"]:
            facts.add(("object color", thing["shape"], thing["color"]))
    for other in others:
        facts |= {("other", other["shape"]), ("relation", other["shape"], other["relation"], main["shape"])}
    return frozenset(facts)


# The kinds of fact that the answer to each prompt claims.
_CLAIMED: dict[str, tuple[str, ...]] = {
    "detail": (
        "background", "style", "others", "main", "main size", "main place", "main color", "object", "object place",
        "object color",
    ),
    "sentence": ("background", "style", "others", "main", "main color", "object"),
    "phrase": ("background", "main", "main color"),
    "nouns": ("object", "background"),
    "main_object": ("main", "main size", "main color"),
    "attributes": ("main", "main size", "main color"),
    "other_objects": ("others", "other", "object color"),
    "background": ("background",),
    "layout": ("others", "object", "object place"),
    "relations": ("others", "relation", "main"),
    "action": ("main", "background"),
    "text": ("sign",),
    "style": ("style",),
    "mood": ("style", "background"),
    "purpose": ("style",),
}  # fmt: skip


def claims(t: Truth, prompt_id: str) -> frozenset[Fact]:
    """What the answer to a prompt says about its scene."""
    claimed = frozenset(fact for fact in facts(t) if fact[0] in _CLAIMED[prompt_id])
    if prompt_id == "detail" and t["sign"]:
        return claimed | {("sign", t["sign"])}
    if prompt_id == "other_objects":  # it says nothing of the main object's colour
        return frozenset(fact for fact in claimed if not (fact[0] == "object color" and fact[1] == t["main"]["shape"]))
    return claimed


def holds(t: Truth, prompt_id: str, other: Truth) -> bool:
    """Whether the answer to a prompt, written from scene `t`, is true of scene `other` as well."""
    return claims(t, prompt_id) <= facts(other)


# Zero-shot classification: label -> class names; label -> templates with one {} for the class name.
CLASSES: dict[str, tuple[str, ...]] = {
    "object": SHAPES,
    "color": tuple(COLORS),
    "background": tuple(BACKGROUNDS),
    "style": tuple(STYLES),
}
TEMPLATES: dict[str, tuple[str, ...]] = {
    "object": ("a picture of a {}.", "the main object is a {}.", "a large {}."),
    "color": ("a {} object.", "the main object is {}.", "something {}."),
    "background": ("the background is a {}.", "a {} in the background.", "a picture of a {}."),
    "style": ("a picture in the style of a {}.", "a {}.", "the style is a {}."),
}


def labels(t: Truth) -> dict[str, str | None]:
    """The scene's class per classification label; color is None where the style shows none."""
    main = t["main"]
    return {"object": main["shape"], "color": main["color"], "background": t["background"], "style": t["style"]}
