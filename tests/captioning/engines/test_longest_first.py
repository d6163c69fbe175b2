"""The order in which questions are begun."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning.engines.base import Request
from captioning.engines.longest_first import GROUP_IMAGES, GROUPS, LongestFirst

PROMPT_TOKENS = 10
PICTURE = Image.new("RGB", (1, 1))
BUDGETS = (77, 32, 48)


def ranked(order: LongestFirst, images: Sequence[str], budgets: Sequence[int] = BUDGETS) -> list[tuple[str, int]]:
    """(image, budget) of all questions, as they would be begun."""
    asked = [(image, budget) for image in images for budget in budgets]
    ranks = [order.rank(Request(PICTURE, image, "?", budget), PROMPT_TOKENS) for image, budget in asked]
    return [asked[index] for index in sorted(range(len(asked)), key=lambda index: (ranks[index], index))]


def test_long_answers_of_a_group_come_first() -> None:
    images = [f"image {number}" for number in range(2 * GROUP_IMAGES)]
    order = ranked(LongestFirst(1 << 20), images)
    expected = [
        (image, budget)
        for group in (images[:GROUP_IMAGES], images[GROUP_IMAGES:])
        for budget in sorted(BUDGETS, reverse=True)
        for image in group
    ]
    assert order == expected


def test_where_the_cache_holds_one_image_its_questions_stay_together() -> None:
    order = ranked(LongestFirst(GROUPS * PROMPT_TOKENS), ["a", "b", "c"])
    assert [image for image, _ in order] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert ranked(LongestFirst(0), ["a", "b"]) == ranked(LongestFirst(GROUPS * PROMPT_TOKENS), ["a", "b"])


def test_a_later_question_about_an_image_goes_with_the_first() -> None:
    order = LongestFirst(GROUPS * PROMPT_TOKENS)  # a group for each image
    ranks = {image: order.rank(Request(PICTURE, image, "?", 32), PROMPT_TOKENS) for image in "abc"}
    chained = order.rank(Request(PICTURE, "a", "and then?", 32), PROMPT_TOKENS)
    assert chained == ranks["a"] < ranks["b"] < ranks["c"]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 400))
def test_a_group_fits_into_its_part_of_the_cache(lengths: list[int], cache: int) -> None:
    order = LongestFirst(cache)
    groups: dict[int, list[int]] = {}
    ranks = []
    for number, tokens in enumerate(lengths):
        ranks.append(order.rank(Request(PICTURE, str(number), "?", 1), tokens))
        groups.setdefault(ranks[-1], []).append(tokens)
    assert all(a <= b for a, b in pairwise(ranks))  # no image is overtaken by a later group
    for members in groups.values():
        assert len(members) == 1 or (sum(members) <= cache // GROUPS and len(members) <= GROUP_IMAGES)
