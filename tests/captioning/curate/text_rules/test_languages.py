"""Captions in many scripts: words, lengths, loops, duplicates and ends are those of their language."""

from __future__ import annotations

import pytest
from small_workspace import both_passes, draft_of, reasons

from captioning.curate.bundles.sub_captions import split_sentences, sub_captions
from captioning.curate.config import CurateConfig, SubCaptionsConfig
from captioning.curate.gadget import run_gadgets
from captioning.curate.gadgets.ending import Ending, EndingConfig
from captioning.curate.gadgets.language import LanguageConfig
from captioning.curate.gadgets.length import LengthConfig
from captioning.curate.text_rules.phrases import load_phrases
from captioning.curate.text_rules.words import is_ended, words

ENDING = Ending(EndingConfig(), load_phrases(None))
WORDS = {  # two dogs swim in the sea; the cuts are those of a reader
    "hi": "दो|कुत्ते|समुद्र|में|तैर|रहे|हैं",
    "bn": "দুটি|কুকুর|সমুদ্রে|সাঁতার|কাটছে",
    "ta": "இரண்டு|நாய்கள்|கடலில்|நீந்துகின்றன",
    "ar": "كَلْبَانِ|يَسْبَحَانِ|فِي|الْبَحْرِ",
    "fa": "دو|سگ|در|دریا|شنا|می\u200cکنند",
    "he": "שְׁנֵי|כְּלָבִים|שׂוֹחִים|בַּיָּם",
    "ko": "개|두|마리가|바다에서|수영한다",
    "am": "ሁለት|ውሾች|በባህር|ውስጥ|ይዋኛሉ",
}
UNSPACED = {
    "th": "สุนัข|สอง|ตัว|กำลัง|ว่าย|น้ำ|ใน|ทะเล",
    "zh": "一只|狗|在|海滩|上|奔跑",
    "ja": "海辺|を|走る|犬",
    "km": "ឆ្កែ|ពីរ|កំពុង|ហែលទឹក",
    "lo": "ໝາ|ສອງ|ໂຕ|ກຳລັງ|ລອຍ|ນ້ຳ",
}
STOPS = {"hi": "।", "bn": "।", "am": "።", "zh": "。", "ja": "。", "km": "។", "th": "", "lo": ""}  # of others "."


@pytest.mark.parametrize("code", [*WORDS, *UNSPACED])
def test_words_are_those_of_the_language(code: str) -> None:
    expected = tuple((WORDS | UNSPACED)[code].split("|"))
    assert words((" " if code in WORDS else "").join(expected) + STOPS.get(code, ".")) == expected


def test_words_of_mixed_text() -> None:
    assert words("Hello日本2人、カメラ・テスト") == ("hello", "日本", "2", "人", "カメラ", "テスト")
    assert words("ข\u0e49าว 5 จาน") == ("ข้าว", "5", "จาน")
    assert words("ab\u00adc d’été-là") == ("ab", "c", "d’été-là")
    assert words("ꦲꦤꦕ") == ("ꦲ", "ꦤ", "ꦕ"), "without a dictionary a character is a word"


def sentence(code: str) -> str:
    return (" " if code in WORDS else "").join((WORDS | UNSPACED)[code].split("|")) + STOPS.get(code, ".")


@pytest.mark.parametrize("code", [*WORDS, *UNSPACED])
def test_honest_captions_of_any_language_stay_as_they_are(code: str) -> None:
    config = CurateConfig(language=LanguageConfig(expected=(code,)))
    draft = draft_of({"text": sentence(code), "finish_reason": None})
    run_gadgets(draft, both_passes(config))
    assert reasons(draft) == [None]
    assert draft.texts == [sentence(code)]
    english = draft_of({"text": sentence(code)})
    run_gadgets(english, both_passes(CurateConfig()))
    assert reasons(english) == ["language"]


@pytest.mark.parametrize("code", [code for code in (WORDS | UNSPACED) if code != "th" and code != "lo"])
def test_a_missing_full_stop_is_that_of_the_script(code: str) -> None:
    text = sentence(code)
    assert is_ended(text)
    assert ENDING.repair(text[:-1], "sentence", "stop") == text
    assert ENDING.repair(f"{text} {text[: len(text) // 2]}", "paragraph", "length") == text


def test_thai_and_lao_have_no_full_stop() -> None:
    first, second = sentence("th"), sentence("lo")
    assert [ENDING.repair(text, "sentence", "stop") for text in (first, second)] == [first, second]
    assert ENDING.repair(f"{first} {first[:9]}", "paragraph", "length") == first


@pytest.mark.parametrize("stop", "।॥؟۔።፧։。！？｡។៕။༎")
def test_stops_of_all_scripts_end_a_sentence(stop: str) -> None:
    assert is_ended(f"அ{stop}")
    assert is_ended(f"«அ{stop}»")
    assert split_sentences(f"அஆ{stop} இஈ{stop}") == [f"அஆ{stop}", f"இஈ{stop}"]


def test_loops_lengths_and_duplicates_go_by_words() -> None:
    loop = " ".join(["दो कुत्ते"] * 6)
    few = {"sentence": {"min": 2, "max": 8}}
    config = CurateConfig(language=LanguageConfig(expected=()), length=LengthConfig.model_validate(few))
    texts = [
        f"{loop}।", "一只狗一只狗一只狗一只狗一只狗。", sentence("hi"), f"{sentence('th')}และ{sentence('zh')}",
        "काला घोड़ा घास पर।", "काली घोड़ी घास पर।", "काला घोड़ा घास पर!",
    ]  # fmt: skip
    draft = draft_of(*({"text": text} for text in texts))
    run_gadgets(draft, both_passes(config))
    assert reasons(draft) == [
        "repetition", "repetition", None, "too_long", None, None, "duplicate"
    ]  # fmt: skip


def test_parts_of_a_caption_are_its_sentences() -> None:
    parts = sub_captions(
        f"{sentence('hi')} काला घोड़ा घास पर। एक औरत किताब पढ़ रही है।", "id", SubCaptionsConfig(enabled=True)
    )
    assert parts
    assert all(part.endswith("।") and "।." not in part for part in parts)
