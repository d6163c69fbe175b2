"""Pictures of several emoji on a ground, with masks: regions of things that nobody here drew.

Things are concepts of living beings, food, places, sports and objects, each in the hand of Noto, Twemoji or Fluent.
What is where is drawn by seed, and later ones hide earlier ones. Where an edge is soft the mask is unlabelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from evaluation.benchmarks import Benchmark
from evaluation.contents import Spec
from evaluation.fetching import emoji
from evaluation.fetching.fetch import benchmark
from evaluation.regions import UNLABELLED, Regions
from pipeline.errors import InputError
from pipeline.pictures import upright
from pipeline.storage import Location

ABOUT = "500 pictures of several emoji with masks: zero-shot segmentation of 150 things and of their groups, pointing"
PACKAGES = emoji.PACKAGES
TEMPLATES = emoji.TEMPLATES
GROUPS = (3, 4, 5, 6, 7)  # animals and nature, food and drink, travel and places, activities, objects
CONCEPTS, PICTURES, SIDE = 150, 500, 224
FEWEST, MOST = 2, 5  # things in a picture
SIZES = (48, 112)  # of a thing, in pixels
HIDDEN = 0.5  # share of the thing of which least can be seen that one more thing may hide
SOLID, CLEAR = 200, 16  # opacity from which a pixel is a thing's, and below which it is not
Drawing = tuple[int, Image.Image]  # a concept's number from 1 on, and its picture with transparency


def build(folders: Sequence[Path], work: Path) -> Benchmark:
    """Pictures and masks are painted below `work`."""
    rng = np.random.default_rng(0)
    concepts, drawings = _drawings(folders, rng)
    pictures, masks = list[tuple[str, Path]](), list[Location]()
    for name in ("pictures", "masks"):
        (work / name).mkdir()
    for number in range(PICTURES):
        picture, number_YX = _painted(drawings, rng)
        path, mask = work / "pictures" / f"{number:04}.png", work / "masks" / f"{number:04}.png"
        picture.save(path)
        Image.fromarray(number_YX).save(mask)
        pictures.append((path.name, path))
        masks.append(Location.of(mask))
    spec = Spec(
        name="emoji_composites", split="all", segmentation=_regions(concepts, emoji.kinds_of(folders, "group"))
    )
    return replace(benchmark(spec, pictures, {}), masks=tuple(masks))


def _drawings(folders: Sequence[Path], rng: np.random.Generator) -> tuple[list[dict[str, Any]], list[Drawing]]:
    """The concepts drawn by lot, in order of their codes, and all drawings of them."""
    found = [(code, path, row) for _, code, path, row in emoji.drawn(folders) if row["group"] in GROUPS]
    codes = sorted({code for code, _, _ in found})
    if not codes:
        raise InputError("the packages have no emoji of things")
    chosen = sorted(codes[place] for place in rng.permutation(len(codes))[:CONCEPTS])
    place = {code: number for number, code in enumerate(chosen, 1)}
    rows = {code: row for code, _, row in found}
    drawings = [(place[code], _cut_out(path)) for code, path, _ in found if code in place]
    return [rows[code] for code in chosen], drawings


def _cut_out(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        layer = upright(opened).convert("RGBA")
    return layer.crop(layer.getchannel("A").getbbox() or (0, 0, *layer.size))


def _painted(drawings: Sequence[Drawing], rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """A picture, and the numbers of its pixels (SIDE, SIDE), 0 for the ground."""
    picture, number_YX = _ground(rng), np.zeros((SIDE, SIDE), np.uint8)
    wanted = int(rng.integers(FEWEST, MOST + 1))
    present = set[int]()
    for place in rng.permutation(len(drawings)):
        concept, cut = drawings[place]
        factor = rng.integers(SIZES[0], SIZES[1] + 1) / max(cut.size)
        thing = cut.resize([max(1, round(factor * length)) for length in cut.size], Image.Resampling.LANCZOS)
        left, top = (int(rng.integers(0, SIDE - length + 1)) for length in thing.size)
        alpha_YX = np.zeros((SIDE, SIDE), np.uint8)
        alpha_YX[top : top + thing.height, left : left + thing.width] = np.asarray(thing.getchannel("A"))
        solid_YX = alpha_YX >= SOLID
        if concept in present or (solid_YX & (number_YX > 0)).sum() > HIDDEN * _smallest(number_YX):
            continue
        picture.paste(thing, (left, top), thing)
        number_YX[(alpha_YX >= CLEAR) & ~solid_YX] = UNLABELLED
        number_YX[solid_YX] = concept
        present.add(concept)
        if len(present) == wanted:
            break
    return picture, number_YX


def _smallest(number_YX: np.ndarray) -> int:
    """Pixels of the thing of which least can be seen."""
    count = np.bincount(number_YX[(number_YX > 0) & (number_YX != UNLABELLED)])
    return int(count[count > 0].min()) if count.any() else 0


def _ground(rng: np.random.Generator) -> Image.Image:
    """A soft blend of four colours."""
    corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
    return corners.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def _regions(concepts: Sequence[dict[str, Any]], groups: dict[int, str]) -> dict[str, Regions]:
    """What is asked: which thing, and which group it belongs to."""
    labels = tuple(row["label"] for row in concepts)
    present = {group: groups[group] for group in sorted({row["group"] for row in concepts})}
    numbers = {
        name: tuple(number for number, row in enumerate(concepts, 1) if row["group"] == group)
        for group, name in present.items()
    }
    asked = {"concept": Regions(classes=labels, templates=TEMPLATES, first=1)}
    if len(present) > 1:  # numbers of their own would be those after the concepts', which no pixel has
        first = len(labels) + 1
        asked["group"] = Regions(
            classes=tuple(numbers), templates=TEMPLATES, first=first, further=numbers, pointing=False
        )
    return asked
