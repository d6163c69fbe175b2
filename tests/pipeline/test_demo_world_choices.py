"""Composition on demo scenes: the right text is true, the wrong one is not, and their words are the same."""

from collections import Counter

import pytest

from pipeline.demo_world.choices import OPPOSITES, choice_rows
from pipeline.demo_world.facts import Truth, facts
from pipeline.demo_world.phrases import RELATION_PHRASES
from pipeline.demo_world.scene import sample, truth
from pipeline.demo_world.vocabulary import COLORS, SHAPES

Claim = tuple[str, ...]


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [truth(sample(seed)) for seed in range(200)]


def claims(kind: str, text: str) -> set[Claim]:
    """What a text says of a scene, as facts about its further objects or their colours."""
    words = text.lower().removesuffix(".")
    if kind == "attribute_swap":
        things = [part.split()[-2:] for part in words.split(" and ")]
        return {("object color", shape, colour) for colour, shape in things}
    for relation, phrase in RELATION_PHRASES.items():
        first, found, second = words.removeprefix("the ").partition(f" is {phrase} the ")
        if found:
            return {("relation", first, relation, second), ("relation", second, OPPOSITES[relation], first)}
    raise AssertionError(text)


def test_only_the_right_text_is_true(truths: list[Truth]) -> None:
    rows = choice_rows([str(number) for number in range(len(truths))], truths)
    assert Counter(row["kind"] for row in rows)["attribute_swap"] > 50
    for row in rows:
        true = facts(truths[int(row["file"])])
        (right,), (wrong,) = row["right"], row["wrong"]
        if row["kind"] == "attribute_swap":
            assert claims(row["kind"], right) <= true
            assert not claims(row["kind"], wrong) & true
        else:  # a relation is a fact of the further object
            assert claims(row["kind"], right) & true
            assert not claims(row["kind"], wrong) & true


def test_nothing_but_the_way_they_belong_together_differs(truths: list[Truth]) -> None:
    for row in choice_rows([""] * len(truths), truths):
        (right,), (wrong,) = row["right"], row["wrong"]
        in_order = [[word.strip(".") for word in text.lower().split()] for text in (right, wrong)]
        shapes = [[word for word in words if word in SHAPES] for words in in_order]
        assert shapes[0] == shapes[1]
        colours = [sorted(word for word in words if word in COLORS) for words in in_order]
        assert colours[0] == colours[1]


def test_either_thing_comes_first(truths: list[Truth]) -> None:
    """So that it is of no help to know which one is the main object."""
    first = Counter(
        row["right"][0].split()[1] == t["main"]["shape"]
        for t in truths
        for row in choice_rows([""], [t])
        if row["kind"] == "relation_opposite"
    )
    assert 0.4 < first[True] / first.total() < 0.6
