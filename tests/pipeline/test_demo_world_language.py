"""The demo world's captions are true, differ by prompt, and fit exactly the scenes they are true of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.demo_world import (
    CLASSES,
    PROMPT_IDS,
    TEMPLATES,
    answer,
    answers,
    canonical,
    claims,
    facts,
    holds,
    labels,
)
from pipeline.demo_world import sample as sample_scene
from pipeline.demo_world import truth as truth_of
from pipeline.demo_world.alt_text import alt_text
from pipeline.demo_world.language import WORDINGS
from pipeline.demo_world.vocabulary import COLORLESS_STYLES, COLORS

truths = st.integers(0, 1 << 41).map(lambda seed: truth_of(sample_scene(seed)))
plain_ids = [prompt for prompt in PROMPT_IDS if prompt != "everything"]
many = settings(max_examples=60, deadline=None)


@many
@given(truths)
def test_every_prompt_has_its_wordings_and_they_end_properly(t) -> None:
    for prompt in plain_ids:
        texts = answers(t, prompt)
        assert len(texts) == WORDINGS
        for text in texts:
            assert text == text.strip()
            assert "  " not in text
            assert "{" not in text
            assert text.endswith(".") == (prompt not in {"phrase", "nouns"}), text


@many
@given(truths)
def test_prompts_say_different_things(t) -> None:
    said = [canonical(t, prompt) for prompt in plain_ids]
    assert len(set(said)) == len(said)


@many
@given(truths)
def test_no_colour_word_where_the_style_shows_none(t) -> None:
    if t["style"] not in COLORLESS_STYLES:
        return
    colors = set(COLORS) - {"black", "white"} if t["style"] == "black and white photo" else set(COLORS)
    for prompt in PROMPT_IDS:
        for text in answers(t, prompt):
            words = set(text.lower().replace(",", " ").replace(".", " ").split())
            assert not words & colors, text


@many
@given(truths)
def test_the_json_answer_holds_all_other_answers(t) -> None:
    for wording, text in enumerate(answers(t, "everything")):
        said = json.loads(text)
        assert list(said) == plain_ids
        assert all(said[prompt] == answers(t, prompt)[wording] for prompt in plain_ids)


@many
@given(truths, truths)
def test_a_caption_is_true_of_its_own_scene_and_of_those_with_the_same_facts(t, other) -> None:
    for prompt in plain_ids:
        assert claims(t, prompt)
        assert holds(t, prompt, t)
        if answers(t, prompt) == answers(other, prompt):
            assert holds(t, prompt, other), prompt


@many
@given(truths, truths)
def test_background_and_style_captions_fit_all_scenes_that_share_them(t, other) -> None:
    assert holds(t, "background", other) == (t["background"] == other["background"])
    assert holds(t, "style", other) == (t["style"] == other["style"])
    assert holds(t, "main_object", other) <= (t["main"]["shape"] == other["main"]["shape"])


def test_detail_captions_nearly_always_single_out_one_scene() -> None:
    scenes = [truth_of(sample_scene(seed)) for seed in range(300)]
    alone = sum(sum(holds(t, "detail", other) for other in scenes) == 1 for t in scenes)
    assert alone >= 297
    some = scenes[:100]
    shared = sum(sum(holds(t, "background", other) for other in scenes) for t in some) / len(some)
    assert shared > 15  # one background caption fits about a twelfth of all scenes


@many
@given(truths)
def test_a_hidden_colour_is_no_fact(t) -> None:
    kinds = {fact[0] for fact in facts(t)}
    assert ({"main color", "object color"} & kinds == set()) == (t["style"] in COLORLESS_STYLES)


@many
@given(truths)
def test_labels_are_classes(t) -> None:
    for label, value in labels(t).items():
        assert value in CLASSES[label] or (label == "color" and value is None)
        assert all(template.count("{}") == 1 for template in TEMPLATES[label])


def test_wording_follows_the_paraphrase_but_not_always() -> None:
    t, rng = truth_of(sample_scene(3)), np.random.default_rng(0)
    said = [answer(t, "style", rng, paraphrase=1) for _ in range(300)]
    share = said.count(answers(t, "style")[1]) / len(said)
    assert 0.7 < share < 0.9
    assert set(said) == set(answers(t, "style"))


def test_alt_texts_are_noisy_as_promised() -> None:
    rng, wrong, useless = np.random.default_rng(0), 0, 0
    scenes = [truth_of(sample_scene(seed)) for seed in range(1000)]
    for t in scenes:
        text = alt_text(t, rng).lower()
        named = t["main"]["shape"] in text
        wrong += not named and any(shape in text for shape in CLASSES["object"])
        useless += not named and not any(shape in text for shape in CLASSES["object"])
    assert 60 < wrong < 140
    assert 110 < useless < 190


def test_unknown_prompt_is_an_error() -> None:
    with pytest.raises(KeyError):
        canonical(truth_of(sample_scene(0)), "no such prompt")
