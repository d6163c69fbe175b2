"""Text gadgets: honest captions pass, faults do not, whatever the words; openers are learnt and never content."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from small_workspace import draft_of, reasons

from captioning.curate.gadgets.clean import Clean, CleanConfig
from captioning.curate.gadgets.ending import Ending, EndingConfig
from captioning.curate.gadgets.language import Language, LanguageConfig
from captioning.curate.gadgets.off_topic import OffTopic, OffTopicConfig
from captioning.curate.gadgets.reject import Reject, RejectConfig, ends_in_loop, repetition, stutters
from captioning.curate.gadgets.unsafe import Unsafe, UnsafeConfig
from captioning.curate.text_rules.head_nouns import head_nouns
from captioning.curate.text_rules.phrases import load_phrases
from captioning.curate.text_rules.unsafe_list import BUILT_IN, forms, list_digest
from captioning.curate.text_rules.words import _split, singular, words
from pipeline import demo_world
from pipeline.config import load_yaml
from pipeline.errors import ConfigError

PHRASES = load_phrases(None)
NOUNS = st.sampled_from(
    ["boat", "house", "dog", "street", "lamp", "table", "window", "mountain", "bridge", "market", "garden", "cup"]
)
ADJECTIVES = st.sampled_from(["red", "small", "wooden", "old", "bright", "quiet", "narrow", "golden"])
PLACES = st.sampled_from(["on a beach", "in a quiet street", "next to a wall", "under a grey sky", "at night"])
HONEST = st.builds(lambda a, n, p, m: f"A {a} {n} {p} with a {m}.", ADJECTIVES, NOUNS, PLACES, NOUNS)
FURTHER = st.builds(lambda a, n: f"Behind it there is one more {n}, and it looks {a}.", ADJECTIVES, NOUNS)
ANY_TEXT = st.text(max_size=120) | st.text(alphabet=string.printable, max_size=120)


def text_gadgets() -> list[Any]:
    """All gadgets that judge a text, but for its length."""
    return [
        Clean(CleanConfig(), PHRASES), Reject(RejectConfig(), PHRASES), Ending(EndingConfig(), PHRASES),
        Language(LanguageConfig()), Unsafe(UnsafeConfig()), OffTopic(OffTopicConfig()),
    ]  # fmt: skip


# ---- for any text ----


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(ANY_TEXT, st.sampled_from(["stop", "length", None])), max_size=6))
def test_no_text_is_an_error_and_a_second_pass_changes_nothing(rows: list[tuple[str, str | None]]) -> None:
    draft = draft_of(*({"text": text, "finish_reason": finish} for text, finish in rows), {"text": "A boat."})
    for gadget in text_gadgets():
        gadget.apply(draft)
    kept = [(draft.texts[row], draft.columns["finish_reason"][row]) for row in draft.open_rows()]
    again = draft_of(*({"text": text, "finish_reason": finish} for text, finish in kept))
    for gadget in text_gadgets():
        gadget.apply(again)
    assert reasons(again) == [None] * len(kept)
    assert again.texts == [text for text, _ in kept]


@settings(deadline=None)
@given(HONEST, FURTHER)
def test_honest_captions_are_left_alone(first: str, second: str) -> None:
    draft = draft_of({"text": first}, {"text": f"{first} {second}", "granularity": "paragraph"})
    for gadget in text_gadgets():
        gadget.apply(draft)
    assert reasons(draft) == [None, None]
    assert draft.texts == [first, f"{first} {second}"]


@given(st.text(max_size=40) | st.text(alphabet="ab!_1-é'日 ", max_size=40))
def test_quick_ways_agree_with_slow_ones(text: str) -> None:
    slow = list(_split(text.lower()))
    assert list(words(text)) == slow
    if slow:
        run = regex.search(r"([^\d])\1{7}", " ".join(text.split())) is not None
        longest = max(sum(map(str.isalnum, word)) for word in slow)
        assert stutters(" ".join(text.split()), tuple(slow)) == (run or longest > 45)


# ---- reject ----


@given(HONEST, st.lists(NOUNS, min_size=2, max_size=5, unique=True), st.integers(0, 4))
def test_a_loop_at_the_end_is_found_wherever_it_is_cut(honest: str, looped: list[str], cut: int) -> None:
    tokens = [*words(honest), *looped * 4][: -min(cut, len(looped)) or None]
    assert ends_in_loop(tokens)


@given(st.lists(NOUNS, unique=True, max_size=12))
def test_different_words_are_no_loop(tokens: list[str]) -> None:
    assert not ends_in_loop(tokens)
    assert repetition(tokens) == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I won't be able to help with this picture.", "refusal"),
        ("The image you sent could not be loaded.", "refusal"),
        ("A red boat. Hope that's what you were looking for!", "meta"),
        ("The user asks for one sentence. A red boat.", "meta"),
        ("A red boat.</s>", "markup"),
        ("An assistant referee raises the flag.", None),
        ("There is no picture on the wall.", None),
        ("A man looks as if to ask you for a light.", None),
        ("The image is not sharp, and no picture hangs straight.", None),
        ("A sign asks visitors: please provide your ticket.", None),
        ("A robot, an AI model on display, cannot be touched.", "meta"),  # known: talk of models about models
    ],
)
def test_reject_knows_talk_from_captions(text: str, reason: str | None) -> None:
    draft = draft_of({"text": text})
    Reject(RejectConfig(), PHRASES).apply(draft)
    assert reasons(draft) == [reason]


# ---- ending ----


@pytest.mark.parametrize(
    ("text", "granularity", "finish", "expected"),
    [
        ("A man with his hat on", "sentence", "stop", "A man with his hat on."),
        ("A man with his hat on", "sentence", None, None),
        ("A man with his hat on", "phrase", "stop", "A man with his hat on"),
        ("a view of the", "phrase", "stop", None),
        ("boat, sea, and", "word", "stop", "boat, sea"),
        ("A sign of Dr.", "sentence", "length", None),
        ("A boat. A sign of Dr.", "paragraph", "length", "A boat."),
        ("A boat sails on the...", "sentence", "stop", None),
    ],
)
def test_ending_goes_by_what_is_known(text: str, granularity: str, finish: str | None, expected: str | None) -> None:
    assert Ending(EndingConfig(), PHRASES).repair(text, granularity, finish) == expected


@given(HONEST, HONEST, st.data())
def test_a_cut_paragraph_goes_back_to_its_whole_sentences(first: str, second: str, data: st.DataObject) -> None:
    cut = f"{first} {second[: data.draw(st.integers(1, len(second) - 1))]}".rstrip()
    assert Ending(EndingConfig(), PHRASES).repair(cut, "paragraph", "length") == first


# ---- language ----


@pytest.mark.parametrize(
    "text",
    [
        "sushi, wasabi, ginger, soy sauce, chopsticks",
        "Wooden table, ceramic mug, croissant, espresso, latte macchiato, napkin",
        "Casa Batlló, Barcelona",
        "vintage retro bicycle basket flowers cobblestone street",
        "A plate of spaghetti alla carbonara at the Trattoria da Enzo in Rome.",
        "The sign says 'Willkommen im Hofbräuhaus'.",
        "BMW M3 E46 coupe",
        "golden retriever puppies",
    ],
)
@pytest.mark.parametrize("granularity", ["phrase", "word"])
def test_names_and_lists_of_nouns_are_not_foreign(text: str, granularity: str) -> None:
    draft = draft_of({"text": text, "granularity": granularity})
    Language(LanguageConfig()).apply(draft)
    assert reasons(draft) == [None]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Ein rotes Boot liegt auf dem ruhigen Meer.", "de"),
        ("Un bateau rouge flotte sur la mer calme.", "fr"),
        ("海辺を走る犬。", "ja"),
        ("Красная лодка у причала.", "ru"),
    ],
)
def test_other_languages_are_dropped_unless_expected(text: str, code: str) -> None:
    for expected, skip, reason in (
        (("en",), (), "language"),
        (("en", code), (), None),
        (("en",), ("detail",), None),
        ((), (), None),
    ):
        draft = draft_of({"text": text})
        Language(LanguageConfig(expected=expected, skip=skip)).apply(draft)
        assert reasons(draft) == [reason]


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'language.expected' names \['klingon'\]"):
        Language(LanguageConfig(expected=("en", "klingon")))


# ---- unsafe ----


def test_unsafe_words_are_whole_words(tmp_path: Path) -> None:
    own = tmp_path / "list.yaml"
    own.write_text("mine: [gun, red wine]\nrot13: [frpergjbeq]\npatterns: ['\\bcig\\w+']\n")
    draft = draft_of(*({"text": text} for text in (
        "Two guns on a table.", "A gunman.", "A glass of red wine.", "Red and white wine.", "A secretword.",
        "A cigarette.", "A red boat.",
    )))  # fmt: skip
    Unsafe(UnsafeConfig(list=str(own))).apply(draft)
    bad = "unsafe"
    assert reasons(draft) == [bad, None, bad, None, bad, bad, None]
    before = list_digest(str(own))
    own.write_text("mine: [gun, '!']\n")
    assert list_digest(str(own)) != before
    with pytest.raises(ConfigError, match="'!', which has no word"):
        Unsafe(UnsafeConfig(list=str(own)))
    own.write_text("patterns: ['(']\n")
    with pytest.raises(ConfigError, match="no regular expression"):
        Unsafe(UnsafeConfig(list=str(own)))


@pytest.mark.parametrize("form", [str.lower, str.upper, str.title, "{}s".format, "{}'s".format, "“{}”,".format])
def test_words_of_the_list_are_found_in_any_casing_and_inflection(form: Any) -> None:
    unsafe = Unsafe(UnsafeConfig())
    entries = [
        entry for group, some in load_yaml(BUILT_IN).items() if group not in ("rot13", "patterns") for entry in some
    ]
    assert len(entries) > 100
    for entry in entries:
        text = f"A picture with {form(entry)} in it."
        assert unsafe.is_unsafe(text, words(text)), entry


def test_inflections_are_made_by_their_endings() -> None:
    assert {"women", "women's"} <= forms("woman")
    assert {"bodies", "body's"} <= forms("body")
    assert {"rapes", "raped", "raping"} <= forms("rape")
    assert "knives" in forms("knife")
    assert "rap" not in forms("raped")
    unsafe = Unsafe(UnsafeConfig())
    assert all(
        unsafe.is_unsafe(text, words(text)) for text in ("Naked women.", "A nude-woman.", "A blood soaked shirt.")
    )


def test_the_built_in_list_lets_everyday_captions_pass() -> None:
    texts = [
        "A blood orange cut in half.", "Nude-coloured shoes.", "A statue of a nude in marble.", "Chicken breast.",
        "A sexton at the church of Scunthorpe.", "A dead tree.", "Bodies of water.", "A shot of the bar.",
    ]  # fmt: skip
    draft = draft_of(*({"text": text} for text in texts))
    Unsafe(UnsafeConfig()).apply(draft)
    assert reasons(draft) == [None] * len(texts)


# ---- off topic ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A young woman in a red dress is standing on a beach.", ["woman"]),
        ("The main object in the image is a small, wooden boat.", ["boat"]),
        ("The most striking thing is a large yellow car.", ["car"]),
        ("A red and white striped lighthouse.", ["lighthouse"]),
        ("A tall building in the fog.", ["building"]),
        ("A pair of leather shoes on the floor.", ["shoes"]),
        ("A cup of coffee.", ["cup", "coffee"]),
        ("Two dogs running.", ["dogs"]),
        ("An object.", []),
        ("", []),
    ],
)
def test_head_nouns(text: str, expected: list[str]) -> None:
    assert head_nouns(text) == expected


def test_head_nouns_of_the_demo_world_are_its_shapes() -> None:
    for seed in range(200):
        truth = demo_world.truth(demo_world.sample(seed))
        assert all(head_nouns(text) == [truth["main"]["shape"]] for text in demo_world.answers(truth, "main_object"))


def test_a_background_that_names_the_main_object_is_off_topic() -> None:
    def judged(main: str, background: str, perspective: str = "background") -> str | None:
        rows = ({"text": main, "perspective": "main_object"}, {"text": background, "perspective": perspective})
        draft = draft_of(*rows)
        OffTopic(OffTopicConfig()).apply(draft)
        return reasons(draft)[1]

    assert judged("A small red boat.", "Behind the boat there is a calm sea.") == "off_topic"
    assert judged("Two horses.", "The horse stands in a meadow.") == "off_topic"
    assert judged("A star.", "A night sky with many small stars.") is None, "other stars"
    assert judged("A small red boat.", "A calm sea.") is None
    assert judged("A small red boat.", "A boat on a calm sea.", "detail") is None


@given(NOUNS)
def test_plurals_fold(noun: str) -> None:
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    assert singular(plural) == singular(noun) == noun
