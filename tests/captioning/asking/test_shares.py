"""Which image is asked what: exactly k prompts, perspectives and models in balance, little moved by what is added."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioning import prompts
from captioning.asking import cells as planning
from captioning.asking.cells import Cell
from captioning.asking.shares import Shares
from captioning.models import Model
from tests.captioning import world

ALL = [prompt.id for prompt in prompts.load("holism").select(None)]
IMAGES = [f"image {number}" for number in range(1500)]


def shares(models: dict[str, float] | None = None, **settings: Any) -> Shares:
    weights = models or {"a": 1.0}
    references = [{"model": name, "weight": weight} for name, weight in weights.items()]
    config = world.config(models=references, **settings)
    known = [Model(name, "1", name, False) for name in weights]
    return Shares.of(config, planning.plan(config, prompts.load(config.prompts.set), known), known)


def perspectives(cells: tuple[Cell, ...]) -> list[str]:
    return [cell.prompt.perspective for cell in cells]


@given(
    k=st.integers(1, 20),
    seed=st.integers(0, 5),
    only=st.sets(st.sampled_from(ALL), min_size=1).map(lambda names: names | {"main_object"}),
    image=st.text(),
)
def test_an_image_is_asked_k_prompts_of_as_many_perspectives_as_there_are(
    k: int, seed: int, only: set[str], image: str
) -> None:
    drawn = shares(prompts={"set": "holism", "only": sorted(only), "sample": k, "seed": seed})
    asked = drawn.asked(image)
    ids = {cell.id for cell in asked}
    assert len(asked) == len(ids) == min(k, len(only))
    assert all(cell.parent in ids for cell in asked if cell.parent)  # a chain's question needs the answer before it
    counts = Counter(perspectives(asked))
    if "attributes" not in ids and max(counts.values()) > 1:  # nothing twice before everything once
        assert set(counts) >= {cell.prompt.perspective for cell in drawn.cells} - {"attributes"}
    assert drawn.asked(image) == asked


def test_perspectives_are_asked_equally_often() -> None:
    drawn = shares(prompts={"set": "paper", "sample": 3})
    counts = Counter(name for image in IMAGES for name in perspectives(drawn.asked(image)))
    expected = 3 * len(IMAGES) / 6  # the paper's seven prompts look at six things
    assert set(counts) == {"detail", "summary", "nouns", "main_object", "background", "style"}
    assert all(abs(count - expected) < 0.1 * expected for count in counts.values())


def test_one_prompt_more_moves_few_others() -> None:
    names = [name for name in ALL if name not in ("mood", "attributes")]
    before = shares(prompts={"set": "holism", "only": names, "sample": 4})
    after = shares(prompts={"set": "holism", "only": [*names, "mood"], "sample": 4})
    kept = [
        len({c.question for c in before.asked(image)} & {c.question for c in after.asked(image)}) for image in IMAGES
    ]
    assert sum(kept) / len(kept) > 4 - 4 / len(names) - 0.2  # only what the new one takes


def test_models_split_the_images_by_weight_and_a_new_one_only_takes() -> None:
    pair = shares({"a": 3.0, "b": 1.0}, mix="split")
    owner = {image: {cell.model.name for cell in pair.asked(image)} for image in IMAGES}
    assert all(len(names) == 1 for names in owner.values())
    assert sum(names == {"a"} for names in owner.values()) / len(IMAGES) == pytest.approx(0.75, abs=0.04)
    three = shares({"a": 3.0, "b": 1.0, "c": 2.0}, mix="split")
    now = {image: {cell.model.name for cell in three.asked(image)} for image in IMAGES}
    assert all(now[image] in (owner[image], {"c"}) for image in IMAGES)


def test_all_models_see_all_images_in_a_cross_product() -> None:
    both = shares({"a": 1.0, "b": 1.0})
    assert both.asked("x") == both.cells
    assert {cell.model.name for cell in both.cells} == {"a", "b"}
    assert all("~" not in cell.id for cell in both.cells)


def test_another_share_is_another_cell_of_the_same_question() -> None:
    whole, drawn = shares(), shares(prompts={**world.PROMPTS, "sample": 2})
    assert [cell.question for cell in drawn.cells] == [cell.id for cell in whole.cells]
    assert not {cell.id for cell in drawn.cells} & {cell.id for cell in whole.cells}
    enough = shares(prompts={**world.PROMPTS, "sample": 3})  # all of them
    assert [cell.id for cell in enough.cells] == [cell.id for cell in whole.cells]
