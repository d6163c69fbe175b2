"""The demo world keeps its promises for any seed: visible objects, a truth that fits the picture, hidden colours."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.demo_world import HELDOUT_OFFSET, SIDE, main_mask_png, render, sample, truth
from pipeline.demo_world.__main__ import write_world
from pipeline.demo_world.regions import BACKGROUND, MAIN, OTHER, SIGN, label_mask, label_png
from pipeline.demo_world.scene import MIN_VISIBLE, visible_fractions
from pipeline.demo_world.shapes import sprite
from pipeline.demo_world.vocabulary import BACKGROUNDS, COLORLESS_STYLES, COLORS, OTHER_SIDES, SHAPES, SIZES, STYLES

seeds = st.integers(0, 2 * HELDOUT_OFFSET)
many = settings(max_examples=60, deadline=None)


@many
@given(seeds)
def test_every_object_is_visible_and_named_once(seed: int) -> None:
    scene = sample(seed)
    assert min(visible_fractions(scene)) >= MIN_VISIBLE
    shapes = [thing.shape for thing in scene.things]
    assert len(set(shapes)) == len(shapes)
    assert all(v >= 0 and v + thing.side <= SIDE for thing in scene.things for v in (thing.x, thing.y))


@many
@given(seeds)
def test_the_main_object_is_the_largest(seed: int) -> None:
    scene = sample(seed)
    assert all(OTHER_SIDES[0] <= other.side < scene.main_thing.side for other in scene.others)
    assert abs(scene.main_thing.side - SIZES[scene.size]) <= 1


@many
@given(seeds)
def test_a_seed_always_gives_the_same_scene_and_picture(seed: int) -> None:
    assert sample(seed) == sample(seed)
    assert truth(sample(seed)) == truth(sample(seed))
    assert np.array_equal(np.asarray(render(sample(seed))), np.asarray(render(sample(seed))))


@many
@given(seeds)
def test_truth_names_colours_only_where_the_style_shows_them(seed: int) -> None:
    t = truth(sample(seed))
    colors = [thing["color"] for thing in (t["main"], *t["others"])]
    if t["style"] in COLORLESS_STYLES:
        assert colors == [None] * len(colors)
    else:
        assert set(colors) <= set(COLORS)


@many
@given(seeds)
def test_colourless_styles_carry_no_colour(seed: int) -> None:
    scene = sample(seed)
    if scene.style not in COLORLESS_STYLES:
        return
    red, green, blue = np.moveaxis(np.asarray(render(replace(scene, sign=None))).astype(int), 2, 0)
    if scene.style == "sepia photo":  # one warm tone, lighter and darker
        assert (red >= green).all()
        assert (green >= blue).all()
    else:
        assert (red == green).all()
        assert (green == blue).all()


@many
@given(seeds)
def test_relations_fit_the_boxes(seed: int) -> None:
    t = truth(sample(seed))
    x0, y0, x1, y1 = t["main"]["box"]
    for other in t["others"]:
        dx = (other["box"][0] + other["box"][2] - x0 - x1) / 2
        dy = (other["box"][1] + other["box"][3] - y0 - y1) / 2
        fits = {"left of": dx < 0, "right of": dx > 0, "above": dy < 0, "below": dy > 0}
        assert fits.get(other["relation"], True), other


@many
@given(seeds)
def test_the_mask_is_the_visible_part_of_the_main_object(seed: int) -> None:
    scene = sample(seed)
    mask = np.asarray(Image.open(io.BytesIO(main_mask_png(scene)))) > 0
    assert mask.shape == (SIDE, SIDE)
    x0, y0, x1, y1 = scene.main_thing.box
    outside = mask.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    share = mask.sum() / scene.main_thing.mask.sum()
    assert share == pytest.approx(visible_fractions(scene)[scene.main])


def test_the_picture_shows_the_object_where_the_truth_says() -> None:
    """Painting the main object in another colour changes pixels inside its mask, and hardly any elsewhere."""
    checked = 0
    for seed in range(200):
        scene = sample(seed)
        if scene.style != "3d render":
            continue
        color = "blue" if scene.main_thing.color != "blue" else "red"
        things = list(scene.things)
        things[scene.main] = replace(scene.main_thing, color=color)
        other = replace(scene, things=tuple(things))
        changed = (np.asarray(render(scene)) != np.asarray(render(other))).any(axis=2)
        mask = np.asarray(Image.open(io.BytesIO(main_mask_png(scene)))) > 0
        assert changed[mask].mean() > 0.3
        assert changed[~mask].mean() < 0.05
        checked += 1
    assert checked >= 5


def test_all_words_turn_up_about_evenly() -> None:
    scenes = [sample(seed) for seed in range(1500)]
    styles = [scene.style for scene in scenes]
    shapes = [scene.main_thing.shape for scene in scenes]
    assert all(styles.count(style) > 0.5 * len(styles) / len(STYLES) for style in STYLES)
    assert all(shapes.count(shape) > 0.5 * len(shapes) / len(SHAPES) for shape in SHAPES)
    relations = {other["relation"] for scene in scenes for other in truth(scene)["others"]}
    assert relations == {"left of", "right of", "above", "below", "in front of", "behind"}


def test_no_two_shapes_look_alike() -> None:
    """Even the small pictures of two shapes share less than 90 % of their silhouette or differ inside it."""
    pictures = [np.asarray(sprite(shape, "red", OTHER_SIDES[0], False)[0]).astype(int) for shape in SHAPES]
    for index, one in enumerate(pictures):
        for two in pictures[index + 1 :]:
            assert np.abs(one - two).mean() > 12


def test_writing_twice_changes_nothing_and_other_arguments_write_anew(tmp_path) -> None:
    assert write_world(tmp_path, train=3, heldout=2, seed=1)
    stamp = (tmp_path / "train" / "000000.jpg").stat().st_mtime_ns
    assert not write_world(tmp_path, train=3, heldout=2, seed=1)
    assert (tmp_path / "train" / "000000.jpg").stat().st_mtime_ns == stamp
    assert write_world(tmp_path, train=2, heldout=2, seed=1)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [
        "000000.jpg", "000000.txt", "000001.jpg", "000001.txt",
    ]  # fmt: skip


def test_the_truth_table_has_one_row_per_image(tmp_path) -> None:
    import pandas as pd

    write_world(tmp_path, train=2, heldout=3, seed=0)
    heldout, train = (
        pd.read_parquet(tmp_path / "heldout/truth.parquet"),
        pd.read_parquet(tmp_path / "train_truth.parquet"),
    )
    assert sorted(heldout["file"]) == sorted(path.name for path in (tmp_path / "heldout").rglob("*.jpg"))
    assert len(train) == 2
    assert not set(heldout["truth"]) & set(train["truth"])
    assert {"alt_text", "label_object", "label_color", "query_detail", "query_style", "mask"} <= set(heldout.columns)


@given(seed=st.integers(0, 2**20))
@settings(max_examples=20, deadline=None)
def test_the_label_mask_says_what_can_be_seen_where(seed: int) -> None:
    scene = sample(seed)
    number_YX = label_mask(scene)
    masks = scene.visible_masks()
    assert np.array_equal(number_YX == MAIN + SHAPES.index(scene.main_thing.shape), masks[scene.main])
    for thing, mask_YX in zip(scene.things, masks, strict=True):
        assert len(np.unique(number_YX[mask_YX])) == 1, thing
    assert (number_YX == SIGN).any() == (scene.sign is not None)
    ground_YX = (number_YX >= BACKGROUND) & (number_YX < OTHER)
    assert set(np.unique(number_YX[ground_YX])) == {BACKGROUND + list(BACKGROUNDS).index(scene.background)}
    assert (number_YX >= OTHER).sum() == sum(m.sum() for n, m in enumerate(masks) if n != scene.main) + (
        number_YX == SIGN
    ).sum()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(label_png(scene)))), number_YX)
