"""Curation: planted faults are found, clean captions survive, and the stage leaves what training reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_workspace import both_passes, draft_of, reasons

from captioning.curate.config import CurateConfig, unknown_perspectives
from captioning.curate.gadget import Known, run_gadgets
from captioning.curate.gadgets import meanings
from captioning.curate.gadgets.clean import Clean, CleanConfig
from captioning.curate.gadgets.ending import Ending, EndingConfig
from captioning.curate.gadgets.length import LengthConfig
from captioning.curate.gadgets.reject import Reject, RejectConfig
from captioning.curate.stage import STAGE
from captioning.curate.text_rules.phrases import load_phrases
from pipeline.config import build
from pipeline.errors import ConfigError

PHRASES = load_phrases(None)
CLEAN = Clean(CleanConfig(), PHRASES)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("The image shows a red boat.", "A red boat."),
        ("This image appears to show a red boat.", "A red boat."),
        ("The photo is a representation of a red boat.", "A red boat."),
        ("As can be seen in the image, there is a red boat.", "A red boat."),
        ("Upon looking at the photo, one sees a red boat.", "A red boat."),
        ("The visual content consists of a red boat.", "A red boat."),
        ("This picture depicts two dogs running.", "Two dogs running."),
        ("In this image, we can see a man.", "A man."),
        ("In the photo there are three cups on a table.", "Three cups on a table."),
        ("Sure! Here is a short description: A cat sleeps.", "A cat sleeps."),
        ("Caption: a cat sleeps", "A cat sleeps"),
        ('"A calm sea."', "A calm sea."),
        ("“A calm\n sea.”", "A calm sea."),
        ("**A calm sea.**", "A calm sea."),
        ("- A calm sea.", "A calm sea."),
        ("A  calm\t\nsea.\u200b", "A calm sea."),
        ("an image of a calm sea", "a calm sea"),
    ],
)
def test_clean_takes_off_what_is_not_the_caption(raw: str, expected: str) -> None:
    assert CLEAN.clean(raw) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A red boat on the sea.",
        '"Stop" and "Go" are written on two signs.',
        "The image shows that winter is near.",  # what follows does not stand by itself
        "A painting of a house in watercolour.",  # the style is part of the caption
        "Image stabilisers on a shelf.",
        "3 apples, 2 pears",
        "O'Neill's pub at night.",
    ],
)
def test_clean_leaves_captions_alone(text: str) -> None:
    assert CLEAN.clean(text) == text


@given(
    st.text(max_size=80) | st.sampled_from(["The image shows ", '"', "Sure! ", "**"]).map(lambda s: s * 3 + "a dog")
)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = CLEAN.clean(text)
    assert CLEAN.clean(once) == once
    assert once == once.strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I cannot assist with that.", "refusal"),
        ("I can't see any picture.", "refusal"),
        ("Unfortunately, I am unable to view images.", "refusal"),
        ("No image was provided.", "refusal"),
        ("As an AI model I do not feel.", "meta"),
        ("A red boat. Let me know if you need more detail!", "meta"),
        ("A dog <|im_end|>", "markup"),
        ("the the the the", "repetition"),
        ("a cat and a dog and a cat and a dog and a cat and a dog and a cat", "repetition"),
        ("noooooooooooo", "repetition"),
        ("x" * 60, "repetition"),
        ("", "empty"),
        ("?!...", "empty"),
    ],
)
def test_reject_names_the_fault(text: str, reason: str) -> None:
    draft = draft_of({"text": text})
    Reject(RejectConfig(), PHRASES).apply(draft)
    assert reasons(draft) == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "The sign says: no dogs, no bikes, no cars.",
        "The star is to the left of the house and the fish is to the left of the boat.",
        "A user interface with a prompt and a red button.",
        "A man looks sorry about the broken vase.",
        "A very, very old tree.",
        "日本の海と山の風景。",
        "A licence plate that reads 0000000000.",
    ],
)
def test_reject_leaves_captions_alone(text: str) -> None:
    draft = draft_of({"text": text})
    Reject(RejectConfig(), PHRASES).apply(draft)
    assert reasons(draft) == [None]


@pytest.mark.parametrize(
    ("text", "granularity", "finish", "expected"),
    [
        ("A boat. Behind it", "paragraph", "length", "A boat."),
        ("A boat. Behind it stands", "paragraph", "stop", "A boat."),
        ("A boat lies on the sea.", "sentence", "length", "A boat lies on the sea."),
        ("A boat lies on the sea", "sentence", "stop", "A boat lies on the sea."),
        ("A boat lies on the", "sentence", "stop", None),
        ("A boat lies on", "sentence", "length", None),
        ("Mr. Smith rows a", "sentence", "length", None),
        ("A boat 3.5 m long and", "sentence", "length", None),
        ('He says "stop!" and', "sentence", "length", 'He says "stop!"'),
        ("海と山。その後", "sentence", "length", "海と山。"),
        ("boat on the sea", "phrase", "stop", "boat on the sea"),
        ("boat on the", "phrase", "length", None),
        ("boat, sea, sk", "word", "length", "boat, sea"),
        ("boat, sea, sky", "word", "stop", "boat, sea, sky"),
    ],
)
def test_ending_repairs_or_drops_what_was_cut(text: str, granularity: str, finish: str, expected: str | None) -> None:
    ending = Ending(EndingConfig(), PHRASES)
    assert ending.repair(text, granularity, finish) == expected
    if expected != text:
        assert Ending(EndingConfig(repair=False), PHRASES).repair(text, granularity, finish) is None


def test_length_goes_by_granularity() -> None:
    config = CurateConfig(length=LengthConfig.model_validate({"phrase": {"max": 3}, "paragraph": {"min": 5}}))
    draft = draft_of(
        {"text": "one two three four", "granularity": "phrase"},
        {"text": "one two three four five six", "granularity": "sentence"},
        {"text": "one two three four.", "granularity": "paragraph"},
    )
    run_gadgets(draft, both_passes(config))
    assert reasons(draft) == ["too_long", None, "too_short"]


def test_limits_the_wrong_way_round_are_named() -> None:
    with pytest.raises(ConfigError, match="min 9 is above max 3"):
        build(CurateConfig, {"length": {"word": {"min": 9, "max": 3}}})


def test_gadgets_declare_what_they_do_and_are_counted_alone() -> None:
    config = build(CurateConfig, {"support": {"enabled": True}})
    known = Known(image_text=lambda _, rows: np.ones(len(rows), np.float32))
    gadgets = both_passes(config, known)
    declared = [reason for gadget in gadgets for reason in gadget.reasons]
    assert sorted(declared) == sorted(meanings()), "every reason belongs to exactly one gadget"
    draft = draft_of({"text": "The image shows a boat."}, {"text": "I'm sorry, I can't."}, {"text": "Blue sky."})
    reports = run_gadgets(draft, gadgets)
    assert (reports["clean"].seen, reports["clean"].changed, reports["clean"].dropped) == (3, 1, {})
    assert (reports["reject"].seen, reports["reject"].dropped) == (3, {"refusal": 1})
    assert reports["ending"].seen == 2
    with pytest.raises(ValueError, match="cannot drop"):
        draft.drop(0, gadgets[0], "duplicate")


def test_own_phrases_are_read_and_mistakes_in_them_named(tmp_path: Path) -> None:
    own = tmp_path / "phrases.yaml"
    own.write_text("openers: ['das {picture} zeigt']\nparts: {picture: '(?:bild|foto)'}\n")
    assert Clean(CleanConfig(), load_phrases(str(own))).clean("Das Foto zeigt ein Haus.") == "Ein Haus."
    before = STAGE.external(CurateConfig(phrases=str(own)))
    own.write_text("openers: ['das {picture} zeigt', 'man sieht']\nparts: {picture: '(?:bild|foto)'}\n")
    assert STAGE.external(CurateConfig(phrases=str(own))) != before, "an edited list is curated again"
    own.write_text("openers: ['(']\n")
    with pytest.raises(ConfigError, match=r"'curate\.phrases': .* 'openers' has '\('"):
        STAGE.external(CurateConfig(phrases=str(own)))
    with pytest.raises(ConfigError, match=r"'curate\.unsafe\.list': "):
        STAGE.external(CurateConfig.model_validate({"unsafe": {"list": str(tmp_path / "none.yaml")}}))
    with pytest.raises(ConfigError, match=r"'curate\.phrases': .*cannot read"):
        STAGE.external(CurateConfig(phrases=str(tmp_path / "none.yaml")))


def test_a_perspective_that_no_caption_has_is_named_unless_it_is_a_default() -> None:
    config = build(CurateConfig, {"language": {"skip": ["text", "txet"]}, "off_topic": {"subject": "main_objekt"}})
    assert unknown_perspectives(config, {"detail", "nouns"}) == [
        "curate.language.skip names 'txet', which is no perspective of these captions (detail, nouns)",
        "curate.off_topic.subject names 'main_objekt', which is no perspective of these captions (detail, nouns)",
    ]
    assert unknown_perspectives(CurateConfig(), {"detail"}) == []
