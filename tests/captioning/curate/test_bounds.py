"""No text takes more than linear time, and an image with very many captions no more than a little memory."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_workspace import draft_of, reasons

from captioning.curate import counts, draft
from captioning.curate.bundles.sub_captions import sub_captions
from captioning.curate.bundles.tokens import clip_token_counter
from captioning.curate.config import CurateConfig, SubCaptionsConfig
from captioning.curate.corpus.endings import Endings
from captioning.curate.corpus.openers import Openers
from captioning.curate.draft import Draft
from captioning.curate.gadget import Known, run_gadgets
from captioning.curate.gadgets import make_gadgets
from captioning.curate.gadgets.clean import CleanConfig
from captioning.curate.gadgets.select import SelectConfig
from captioning.curate.text_rules.head_nouns import head_nouns
from captioning.curate.text_rules.phrases import load_phrases

CONFIG = CurateConfig()
GADGETS = make_gadgets("texts", CONFIG)
OPENERS = Openers(CleanConfig(), load_phrases(None).learn)
UNITS = [
    "a", "漢", "ก", "e\u0301\u0323", "\u0323\u0301", " \n", "<b>", "<think>", "<|im_end|>", "{", '{"a":', "[1,",
    "\\boxed{", "```",
    "**a ", "__a ", '"', "“", "„a ", "‘", "'a ", "- dog\n", "1. dog\n", "! ", "...", '."', "?", "Dr. ",
    "The image shows ", "you ",
    "a x b ", "## ",
]  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_no_text_takes_more_than_linear_time(unit: str) -> None:
    """What is quadratic takes seconds for 25,000 characters."""
    text = (unit * (25_000 // len(unit))) + "x."
    started = time.process_time()
    rows = draft_of({"text": text, "finish_reason": None}, {"text": text, "granularity": "word"})
    for counted in (Endings(), OPENERS):
        counted.of_shard(rows)
    for gadget in GADGETS:
        gadget.apply(rows)
    sub_captions(text, "id", SubCaptionsConfig(enabled=True))
    head_nouns(text)
    clip_token_counter()(text)
    assert time.process_time() - started < 1.5


def many(number: int, seed: int = 0) -> Draft:
    """So many captions of one image, all different."""
    draw = random.Random(seed)
    nouns = ["boat", "house", "dog", "lamp", "table", "bridge", "market", "garden", "cup", "tree", "car", "cloud"]
    texts = [
        f"A {draw.choice(nouns)} near a {draw.choice(nouns)} and {n} {draw.choice(nouns)}s." for n in range(number)
    ]
    return draft_of(*({"text": text, "perspective": f"p{n % 3}"} for n, text in enumerate(texts)))


@pytest.mark.parametrize("method", ["max_min", "dpp"])
def test_thousands_of_captions_of_one_image_take_little_memory(method: str) -> None:
    """6,000 took a gigabyte, and 20,000 ten."""
    config = CurateConfig(select=SelectConfig.model_validate({"method": method}))
    rows = many(6_000)
    rows.columns["text"][7] = rows.texts[7] = rows.texts[1]
    tracemalloc.start()
    run_gadgets(rows, make_gadgets("images", config))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 << 20
    counted = Counter(reasons(rows))
    assert counted[None] == config.select.max_captions
    assert counted["too_many"] == 6_000 - 1_000 - 1
    assert counted["duplicate"] == 1
    figures = {"reasons": {"too_many": 4_999}, "images_without_captions": 0}
    assert "4,999 captions were dropped as too_many" in counts.find_warnings(figures, [], 1)[0]


TEXTS = st.lists(
    st.sampled_from(["a boat", "a red boat", "the sea", "a dog on the sea", "a dog"]), min_size=1, max_size=9
)


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 9))
def test_what_is_compared_is_the_same_in_any_pieces(images: list[list[str]], most: int) -> None:
    """Images within the limit are judged as without one, and similarities that are computed again are the same."""

    def judged(compared: int, kept: int) -> list[tuple[str, str | None, dict[str, float]]]:
        rows = [
            {"key": f"k{image}", "text": text, "caption_id": f"{image} {number}", "perspective": f"p{number % 2}"}
            for image, texts in enumerate(images)
            for number, text in enumerate(texts)
        ]
        full = draft_of(*rows)
        full.compared = compared
        monkeypatch.setattr(draft, "KEPT", kept)
        run_gadgets(full, make_gadgets("images", CONFIG, Known()))
        return list(zip(full.columns["key"], reasons(full), full.scores, strict=True))

    with pytest.MonkeyPatch.context() as monkeypatch:
        free, limited, again = judged(1_000, 1 << 25), judged(most, 1 << 25), judged(1_000, 0)
    assert again == free
    within = {f"k{image}" for image, texts in enumerate(images) if len(texts) <= most}
    assert [row for row in limited if row[0] in within] == [row for row in free if row[0] in within]
    for image, texts in enumerate(images):
        mine = [reason for key, reason, _ in limited if key == f"k{image}"]
        assert None in mine
        assert mine.count("too_many") == max(0, len(set(texts)) - most if len(texts) > most else 0)
