"""A scene: what is in a picture, drawn from a seed, and the exact truth about it.

`sample(seed)` decides everything; `render` only paints what was decided, so truth and picture cannot disagree.
Every object is at least 60 % visible, and shapes within a scene are distinct, so that a noun names one object.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.demo_world.shapes import silhouette
from pipeline.demo_world.vocabulary import (
    BACKGROUNDS,
    COLORLESS_STYLES,
    COLORS,
    OTHER_SIDES,
    PLACES,
    SHAPES,
    SIGNS,
    SIZES,
    STYLES,
)

SIDE = 96  # of the square image, in pixels
MIN_VISIBLE = 0.6
HELDOUT_OFFSET = 1 << 40  # held-out seeds start here, so no split can ever reach into the other
SIGN_WIDTH, SIGN_HEIGHT = 40, 13
_OTHERS_SHARES = (0.2, 0.33, 0.3, 0.17)  # of scenes with 0, 1, 2, 3 further objects
_SIGN_SHARE = 0.25
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Thing:
    """One object: its look and the square (x, y, x + side, y + side) that it is painted into."""

    shape: str
    color: str
    side: int
    x: int
    y: int
    flipped: bool

    @property
    def box(self) -> Box:
        return self.x, self.y, self.x + self.side, self.y + self.side

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.side / 2, self.y + self.side / 2

    @cached_property
    def mask(self) -> np.ndarray:
        """Its pixels, hidden or not: bool (SIDE, SIDE)."""
        canvas = np.zeros((SIDE, SIDE), bool)
        canvas[self.y : self.y + self.side, self.x : self.x + self.side] = silhouette(
            self.shape, self.side, self.flipped
        )
        return canvas


@dataclass(frozen=True)
class Scene:
    """Everything in a picture. `things` are in painting order, the back first; `main` is the main object's index."""

    seed: int
    background: str
    style: str
    size: str
    things: tuple[Thing, ...]
    main: int
    sign: str | None
    sign_at_top: bool

    @property
    def main_thing(self) -> Thing:
        return self.things[self.main]

    @property
    def others(self) -> list[Thing]:
        return [thing for index, thing in enumerate(self.things) if index != self.main]

    @property
    def sign_box(self) -> Box | None:
        """Where the sign hangs, before everything else; None without a sign."""
        if self.sign is None:
            return None
        x, y = (SIDE - SIGN_WIDTH) // 2, 1 if self.sign_at_top else SIDE - SIGN_HEIGHT - 1
        return x, y, x + SIGN_WIDTH, y + SIGN_HEIGHT

    def visible_masks(self) -> list[np.ndarray]:
        """Per thing, its pixels that nothing hides: bool (SIDE, SIDE) each."""
        return _visible(self.things, self.sign_box)


def _visible(things: tuple[Thing, ...], sign_box: Box | None) -> list[np.ndarray]:
    hidden = np.zeros((SIDE, SIDE), bool)
    if sign_box is not None:
        x0, y0, x1, y1 = sign_box
        hidden[y0:y1, x0:x1] = True
    masks = []
    for thing in reversed(things):
        masks.append(thing.mask & ~hidden)
        hidden = hidden | thing.mask
    return masks[::-1]


def visible_fractions(scene: Scene) -> list[float]:
    """Per thing, the share of its pixels that can be seen."""
    pairs = zip(scene.things, scene.visible_masks(), strict=True)
    return [float(mask.sum() / thing.mask.sum()) for thing, mask in pairs]


def _overlap(a: Thing, b: Thing) -> int:
    """How deep two objects' squares reach into each other, in pixels; negative is a gap."""
    (ax, ay), (bx, by) = a.centre, b.centre
    return round((a.side + b.side) / 2 - max(abs(ax - bx), abs(ay - by)))


def _place_other(rng: np.random.Generator, shape: str, color: str, main: Thing, placed: list[Thing]) -> Thing | None:
    """A further object that keeps clear of the others and hardly touches the main one; None where none fits."""
    side = int(rng.integers(OTHER_SIDES[0], OTHER_SIDES[1] + 1))
    reach = 13 if rng.random() < 0.35 else 1  # some objects stand in front of or behind the main one
    flipped = bool(rng.random() < 0.5)
    for _ in range(30):
        x, y = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
        thing = Thing(shape, color, side, x, y, flipped)
        if _overlap(thing, main) <= reach and all(_overlap(thing, other) <= 0 for other in placed):
            return thing
    return None


def _attempt(rng: np.random.Generator, seed: int) -> Scene | None:
    """One try at a scene; None where something is hidden too much."""
    names, paints = list(SHAPES), list(COLORS)
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    style = list(STYLES)[rng.integers(len(STYLES))]
    size = list(SIZES)[rng.integers(len(SIZES))]
    count = 1 + int(rng.choice(4, p=_OTHERS_SHARES))
    shapes = [names[i] for i in rng.permutation(len(names))[:count]]
    colors = [paints[i] for i in rng.integers(0, len(paints), count)]
    side = SIZES[size] + int(rng.integers(-1, 2))
    x, y = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
    main = Thing(shapes[0], colors[0], side, x, y, bool(rng.random() < 0.5))
    others: list[Thing] = []
    for shape, color in zip(shapes[1:], colors[1:], strict=True):
        other = _place_other(rng, shape, color, main, others)
        if other is not None:
            others.append(other)
    behind = int(rng.integers(len(others) + 1))
    things = (*others[:behind], main, *others[behind:])
    sign = SIGNS[rng.integers(len(SIGNS))] if rng.random() < _SIGN_SHARE else None
    scene = Scene(seed, background, style, size, things, behind, sign, bool(rng.random() < 0.5))
    return scene if min(visible_fractions(scene)) >= MIN_VISIBLE else None


def sample(seed: int) -> Scene:
    """The scene of this seed: always the same one."""
    for retry in itertools.count():
        scene = _attempt(np.random.default_rng((seed, retry)), seed)
        if scene is not None:
            return scene
    raise AssertionError("unreachable")


def _place(thing: Thing) -> str:
    """Which part of a three by three grid the object's centre lies in."""
    x, y = thing.centre
    column = 0 if x < SIDE * 0.4 else 2 if x > SIDE * 0.6 else 1
    row = 0 if y < SIDE * 0.4 else 2 if y > SIDE * 0.6 else 1
    return PLACES[row * 3 + column]


def relation(scene: Scene, index: int) -> str:
    """How a further object stands to the main one: in front of or behind where they overlap, else its direction."""
    thing, main = scene.things[index], scene.main_thing
    shared = int((thing.mask & main.mask).sum())
    if shared >= 0.05 * thing.mask.sum():
        return "in front of" if index > scene.main else "behind"
    dx, dy = (a - b for a, b in zip(thing.centre, main.centre, strict=True))
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def truth(scene: Scene) -> dict[str, Any]:
    """All that can be said about the picture, as plain JSON values.

    Keys: background, style, size, sign (or None), main and others, each object with shape, color (None where the
    style shows no colour), place, box, visible; others also with their relation to the main object. The others come
    left to right, so that a list of them has one order.
    """
    fractions = visible_fractions(scene)
    shows_color = scene.style not in COLORLESS_STYLES

    def describe(index: int) -> dict[str, Any]:
        thing = scene.things[index]
        facts: dict[str, Any] = {
            "shape": thing.shape,
            "color": thing.color if shows_color else None,
            "place": _place(thing),
            "box": list(thing.box),
            "visible": round(fractions[index], 3),
        }
        return facts if index == scene.main else facts | {"relation": relation(scene, index)}

    others = [describe(index) for index in range(len(scene.things)) if index != scene.main]
    return {
        "seed": scene.seed,
        "background": scene.background,
        "style": scene.style,
        "size": scene.size,
        "sign": scene.sign,
        "main": describe(scene.main),
        "others": sorted(others, key=lambda other: other["box"][0] + other["box"][2]),
    }
