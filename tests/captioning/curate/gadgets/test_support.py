"""Object mentions: the vocabulary is what captions list, and what no other caption of the image supports is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.curate.corpus.objects import Objects, listed
from captioning.curate.draft import Draft
from captioning.curate.gadget import run_gadgets
from captioning.curate.gadgets.support import Support, SupportConfig
from pipeline import demo_world

PROMPTS = {
    "detail": "detail", "sentence": "summary", "phrase": "summary", "nouns": "nouns", "main_object": "main_object",
    "layout": "layout", "relations": "relations",
}  # fmt: skip


def draft(*rows: tuple[str, str, str]) -> Draft:
    """Rows of (key, perspective, text)."""
    keys, perspectives, texts = zip(*rows, strict=True)
    ids = [f"{number:05}" for number in range(len(rows))]
    columns: dict[str, list[Any]] = {"key": list(keys), "perspective": list(perspectives), "text": list(texts)}
    return Draft({**columns, "caption_id": ids, "granularity": ["sentence"] * len(rows)})


def dropped(made: Draft) -> list[str]:
    return [made.texts[row] for row, verdict in enumerate(made.verdicts) if verdict]


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("boat, sea, night sky", {"boat", "sea", "sky"}),
        ("Two dogs, children and a traffic light.", {"dog", "child", "light"}),
        ("1. men\n2. ladies; 3. glasses", {"man", "lady", "glass"}),
        ("Nouns: image, background, star", {"star"}),
        ("", set()),
    ],
)
def test_lists_name_things(text: str, things: set[str]) -> None:
    assert listed(text) == things


def test_a_thing_is_what_several_images_list() -> None:
    rows = [(str(image), "nouns", "boat, boats, sea") for image in range(3)]
    rows += [("9", "nouns", "unicorn"), ("8", "main_object", "A red boat."), ("8", "detail", "umbrella, umbrella")]
    statistic = Objects(min_images=3)
    table = statistic.of_shard(draft(*rows))
    assert dict(zip(table["word"].to_pylist(), table["images"].to_pylist(), strict=True)) == {
        "boat": 4, "sea": 3, "unicorn": 1,
    }  # fmt: skip
    assert statistic.merge(iter([table])) == ("boat", "sea")
    assert statistic.merge(iter([table, table])) == ("boat", "sea")
    assert Objects(min_images=1).merge(iter([table])) == ("boat", "sea", "unicorn")


@settings(max_examples=30)
@given(order=st.randoms(), cut=st.integers(0, 6))
def test_the_vocabulary_does_not_depend_on_shards(order: Any, cut: int) -> None:
    rows = [(str(image), "nouns", text) for image, text in enumerate(["a, b boat", "boat", "sea", "sea, boat", "sky"])]
    rows.append(("0", "main_object", "The main object is a boat."))
    statistic = Objects(min_images=2)
    whole = statistic.merge(iter([statistic.of_shard(draft(*rows))]))
    order.shuffle(rows)
    first = [row for row in rows if int(row[0]) < cut]
    rest = [row for row in rows if int(row[0]) >= cut]
    assert statistic.merge(statistic.of_shard(draft(*part)) for part in (rest, first) if part) == whole


OBJECTS = ("boat", "sea", "gull", "tower", "horse", "sky")
HONEST = (
    ("k", "detail", "A boat on the sea, with gulls in the sky."),
    ("k", "summary", "Boats at sea."),
    ("k", "nouns", "boat, sea, sky"),
)


def apply(made: Draft, alt_text: str = "", **settings: Any) -> Draft:
    run_gadgets(made, [Support(SupportConfig(**settings), OBJECTS, {"k": alt_text})])
    return made


def test_what_nobody_else_mentions_is_dropped() -> None:
    made = apply(draft(*HONEST, ("k", "background", "A horse before a tower.")))
    assert dropped(made) == ["A horse before a tower."]
    assert made.scores[0]["unsupported"] == pytest.approx(1 / 4)  # only the gulls
    assert made.scores[3]["unsupported"] == 1.0


def test_alt_text_supports() -> None:
    strange = ("k", "background", "A horse before a tower.")
    assert dropped(apply(draft(*HONEST, strange), "our tower and a horse")) == []
    assert dropped(apply(draft(*HONEST, strange), "our tower", max_unsupported=0.5)) == []  # no more than half
    assert dropped(apply(draft(*HONEST, strange), "our tower", max_unsupported=0.4)) == [strange[2]]


def test_captions_of_style_testify_and_are_not_judged() -> None:
    strange = ("k", "background", "A horse before a tower.")
    style = ("k", "style", "A sketch of a horse, a tower and a gull.")
    made = apply(draft(*HONEST, strange, style))
    assert dropped(made) == []
    assert made.scores[3]["unsupported"] == 0.0
    assert "unsupported" not in made.scores[4]
    assert dropped(apply(draft(*HONEST, style), not_judged=())) == []  # gulls are in the detail caption
    assert dropped(apply(draft(*HONEST, style), not_judged=(), max_unsupported=0.5)) == [style[2]]


def test_few_witnesses_judge_nobody() -> None:
    strange = ("k", "background", "A horse before a tower.")
    assert dropped(apply(draft(*HONEST[:2], strange))) == []
    assert dropped(apply(draft(*HONEST[:2], strange), min_others=2)) == [strange[2]]


def test_a_caption_without_things_is_not_judged() -> None:
    made = apply(draft(*HONEST, ("k", "style", "A calm watercolour.")))
    assert dropped(made) == []
    assert "unsupported" not in made.scores[3]


@settings(max_examples=40)
@given(texts=st.lists(st.lists(st.sampled_from(OBJECTS), max_size=3).map(" ".join), min_size=1, max_size=7))
def test_an_image_never_loses_its_last_caption_and_order_does_not_matter(texts: list[str]) -> None:
    made = apply(draft(*(("k", "detail", text) for text in texts)), min_others=1, max_unsupported=0)
    assert any(verdict is None for verdict in made.verdicts)
    mentions = [frozenset(text.split()) for text in texts]
    for row, own in enumerate(mentions):
        others = frozenset().union(*(mentions[other] for other in range(len(texts)) if other != row))
        if len(texts) > 1 and own:
            assert made.scores[row]["unsupported"] == pytest.approx(len(own - others) / len(own))


def test_captions_of_another_scene_are_found_and_true_ones_stay() -> None:
    truths = [demo_world.truth(demo_world.sample(seed)) for seed in range(120)]
    rows, planted = [], set()
    rng = np.random.default_rng(0)
    for number, truth in enumerate(truths):
        for prompt, perspective in PROMPTS.items():
            rows.append((f"{number:04}", perspective, demo_world.answer(truth, prompt, rng)))
        if number % 3 == 0:
            other = truths[(number + 1) % len(truths)]
            if other["main"]["shape"] not in str(truth):
                rows.append((f"{number:04}", "main_object", f"Wrong: {demo_world.answer(other, 'phrase', rng)}"))
                planted.add(len(rows) - 1)
    made = draft(*rows)
    objects = Objects(3)
    vocabulary = objects.merge(iter([objects.of_shard(made)]))
    run_gadgets(made, [Support(SupportConfig(), vocabulary, {})])
    judged_wrong = {row for row, verdict in enumerate(made.verdicts) if verdict}
    wrong = {row for row in range(len(made)) if made.texts[row].startswith("Wrong")}
    assert len(judged_wrong & wrong) / len(wrong) > 0.5
    assert len(judged_wrong - wrong) / (len(made) - len(wrong)) < 0.01
