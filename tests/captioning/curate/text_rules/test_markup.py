"""Markup of models and templates comes off before a text is judged, and honest captions keep what looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_workspace import both_passes, draft_of, reasons

from captioning.curate.config import CurateConfig
from captioning.curate.corpus.endings import Endings
from captioning.curate.gadget import run_gadgets
from captioning.curate.gadgets.clean import Clean, CleanConfig
from captioning.curate.text_rules.phrases import load_phrases

CLEAN = Clean(CleanConfig(), load_phrases(None))
CAT = "A grey cat sleeps in a basket."
WRAPPINGS = [
    # tokens and turns
    "{}</s>", "<s>{}</s><pad><pad>", "{}<|eot_id|>", "{}<|endoftext|>A car on a road.", "{}<end_of_turn>\n",
    "[CLS] {} [SEP]",
    "<|im_start|>assistant\n{}<|im_end|>\n<|im_start|>user\nAnd now?", "<start_of_turn>model\n{}<end_of_turn>",
    "<|start_header_id|>assistant<|end_header_id|>\n\n{}", "[INST] Describe it. [/INST] {}", "{} [/INST]",
    "{}<｜end▁of▁sentence｜>",
    "<|user|>\nDescribe it.<|end|>\n<|assistant|>\n{}<|end|>", "USER: <image>\nDescribe it. ASSISTANT: {}",
    "assistant\n{}",
    "{}\nUser: And now?\nAssistant: A car.", "### Human: Describe it.\n### Assistant: {}", "{}<|im_", "{}<0x0A>",
    "<image>\n{}",
    # thoughts
    "<think>Is it a dog?</think>\n\n{}", "It may be a dog.\n</think>\n{}", "◁think▷A dog?◁/think▷{}",
    "[THINK]A dog?[/THINK]{}",
    "<|channel|>analysis<|message|>A dog?<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "<seed:think>A dog?</seed:think>{}", "<REASONING>A dog?</REASONING><CONCLUSION>{}</CONCLUSION>",
    # tags and code
    "<caption>{}</caption>", "<answer>\n{}\n</answer>", "<my_caption>{}</my_caption>", "<p>{}</p><br/>",
    "[Caption]: {}",
    "```\n{}\n```", "```text\n{}\n```", "Here is the caption:\n```\n{}\n```\nAnything else?", "\\boxed{{{}}}",
    "The caption is: $\\boxed{{\\text{{{}}}}}$", "<!-- caption -->{}", '<img src="1.jpg" alt="{}">',
    # JSON
    '{{"caption": "{}"}}', '```json\n{{"caption": "{}", "confidence": 0.93}}\n```', "{{'description': '{}'}}",
    '["{}"]',
    '{{"image": {{"text": "{}", "size": [640, 480]}}}}', '"{{\\"caption\\": \\"{}\\"}}"',
    '{{"caption": "{}", "tags": ["a", "b"]}}',
    # headings and bullets
    "### Caption\n{}", "**Image description:**\n\n{}", "- {}", "> {}", "1. {}", "# A Quiet Afternoon\n{}",
]  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_caption_is_taken_out_of_its_wrapping(wrapping: str) -> None:
    assert CLEAN.clean(wrapping.format(CAT)) == CAT


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("A cat (0.97) sleeps in a basket (0.5).", "A cat sleeps in a basket."),
        ("A cat [12, 40, 200, 310] sleeps in a basket [[0.1, 0.2], [0.3, 0.4]].", "A cat sleeps in a basket."),
        ("<ref>A cat</ref><box>(12,40),(200,310)</box> sleeps.", "A cat sleeps."),
        ("<|object_ref_start|>A cat<|object_ref_end|><|box_start|>(1,4),(2,3)<|box_end|> sleeps.", "A cat sleeps."),
        ("<p>A cat</p> {<12><40><70><99>} sleeps.", "A cat sleeps."),
        ("A cat<loc_12><loc_40><loc_200><loc_310> sleeps.", "A cat sleeps."),
        ("▁A▁cat▁sleeps.", "A cat sleeps."),
        ("AĠcatĠsleeps.", "A cat sleeps."),
        ("a cat sleep ##s in a bas@@ ket</w>", "a cat sleeps in a basket"),
        ("Cats &amp; dogs &quot;at home&quot;", 'Cats & dogs "at home"'),
        ("A caf<0xC3><0xA9> at night.", "A café at night."),
        ('{"caption": "A caf\\u00e9 \\ud83d at night."}', "A café at night."),
        ('{"caption": "A cat sleeps in a', "A cat sleeps in a"),
        ("A **grey** cat and *two* ~~dogs~~ kittens.", "A grey cat and two dogs kittens."),
        ("A view of [the beach](https://example.org/1).", "A view of the beach."),
        ("- A cat sleeps in a basket\n- The basket is old", "A cat sleeps in a basket. The basket is old"),
        ("The image shows:\n* a cat\n* a basket", "A cat, a basket"),
        ("<think>It may be a cat", ""),
        ("0.93 A cat sleeps.", "A cat sleeps."),
        ("A cat sleeps. 0.9312", "A cat sleeps."),
        ("[|assistant|]A cat sleeps.[|endofturn|]", "A cat sleeps."),
        ("```\n一只猫在睡觉。\n```<|im_end|>", "一只猫在睡觉。"),
    ],
)
def test_markup_inside_a_caption_comes_off(raw: str, expected: str) -> None:
    assert CLEAN.clean(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "- cat\n- basket\n- red ball", "1. cat\n2. basket\n3. red ball", "cat\nbasket\nred ball",
        "cat,\nbasket,\nred ball.",
        '["cat", "basket", "red ball"]', "['cat', 'basket', 'red ball']", '{"nouns": ["cat", "basket", "red ball"]}',
        "```json\n[\"cat\", \"basket\", \"red ball\"]\n```", "1. cat 2. basket 3. red ball",
        "• cat • basket • red ball",
        "Nouns:\n- cat\n- basket\n- red ball", "Objects: cat, basket, red ball", "[cat, basket, red ball]",
        "cat (0.98), basket (0.9), red ball (0.5)", "cat: 0.98\nbasket: 0.91\nred ball: 0.5",
        "cat | basket | red ball",
        "cat: 0.98, basket: 0.91, red ball: 0.5",
        "| cat |\n| --- |\n| basket |\n| red ball |", "<ul><li>cat</li><li>basket</li><li>red ball</li></ul>",
        '[{"label": "cat", "bbox_2d": [1, 2, 3, 4]}, {"label": "basket"}, {"label": "red ball"}]',
        "Here are the nouns:\n1. **cat**\n2. **basket**\n3. **red ball**</s>", "cat, basket, red ball",
    ],
)  # fmt: skip
def test_lists_stay_lists(raw: str) -> None:
    assert CLEAN.clean(raw, "word") == "cat, basket, red ball"


@pytest.mark.parametrize(
    "text",
    [
        "A sign says <EXIT> in red.", "A page says <script>alert(1)</script> on a board.",
        "A board with (3, 4) and [1].",
        "A bottle (0.5 l) and a cup (blue).", "Ġorġ walks in Ġgantija.", "5 * 3 * 2 is written on it, and **** too.",
        "A row of shops: H&M, R&B records.", "A price of $5 {reduced}.", "Two cats -- one grey.", "A_b and __ c.",
        "A score of 3:1 on the board.", "A price of 0.93", "The path C:\\new is on a screen.",
    ],
)  # fmt: skip
def test_captions_keep_what_only_looks_like_markup(text: str) -> None:
    assert CLEAN.clean(text) == text


def test_what_cannot_be_told_from_the_caption_is_dropped_with_its_reason() -> None:
    texts = ['{"first": "A cat sleeps here.", "second": "A dog runs there."}', CAT + " \\frac{1}{2}", "[image: a cat]"]
    draft = draft_of(*({"text": text} for text in texts))
    run_gadgets(draft, both_passes(CurateConfig()))
    assert reasons(draft) == ["markup"] * 3


def test_a_setting_leaves_markup_and_reject_finds_it() -> None:
    draft = draft_of({"text": f"{CAT}</s>"}, {"text": f"<caption>{CAT}</caption>"})
    run_gadgets(
        draft,
        both_passes(CurateConfig(clean=CleanConfig(markup=False))),
    )
    assert reasons(draft) == ["markup"] * 2


def test_habits_are_learnt_without_markup() -> None:
    rows = [{"text": f"A cat of number {number} sleeps.</s>", "finish_reason": None} for number in range(100)]
    counted = Endings()
    assert counted.merge(iter([counted.of_shard(draft_of(*rows))])).stopped == {("detail", "sentence")}


PIECES = st.sampled_from(
    ["</s>", "<think>", "</think>", "<|im_end|>", "<b>", "</b>", "<box>", "```", "json", "{", "}", '"', "caption",
    ":", "[", "]",
     "\\boxed{", "(0.85)", "▁", "&amp;", "&lt;", "\n", "- ", "1. ", "**", "A cat sleeps.", "cat", ", ", "User: ",
     "### "]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=9).map("".join), st.sampled_from(["sentence", "word", "paragraph"]))
def test_cleaning_twice_changes_nothing_more(text: str, granularity: str) -> None:
    once = CLEAN.clean(text, granularity)
    assert CLEAN.clean(once, granularity) == once
    assert once == " ".join(once.split())
