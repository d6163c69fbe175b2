"""Prompt sets: the built-in ones are whole, and mistakes are named with file, prompt and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from captioning import prompts
from captioning.config import CaptionConfig
from pipeline.config import build
from pipeline.errors import ConfigError

GOOD: dict[str, Any] = {
    "id": "one", "perspective": "detail", "granularity": "sentence", "level": "scene", "max_tokens": 20,
    "ends": "sentence", "paraphrases": ["What is it?"],
}  # fmt: skip


def written(folder: Path, *entries: dict[str, Any]) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "prompts": list(entries)}))
    return str(path)


def test_the_papers_set_asks_the_papers_questions_first() -> None:
    paper = {prompt.id: prompt for prompt in prompts.load("paper").prompts}
    assert set(paper) == {"detail", "phrase", "sentence", "nouns", "style", "background", "main_object"}
    assert paper["detail"].paraphrases[0] == "Describe the image in detail."
    assert paper["nouns"].paraphrases[0] == "Briefly describe the image with few noun words separated by ','."
    assert (paper["phrase"].perspective, paper["phrase"].granularity) == ("summary", "phrase")


def test_the_richer_set_has_a_chain_and_a_structured_answer() -> None:
    holism = {prompt.id: prompt for prompt in prompts.load("holism").prompts}
    assert holism["attributes"].after == "main_object"
    assert holism["everything"].ends == "json"
    assert "a red {dog}" in holism["attributes"].render(0, " a red {dog} ")  # braces of an answer stay as they are


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"granularity": "novel"}, ["mine.yaml", "'one'", "granularity", "novel", "paragraph"]),
        ({"level": None}, ["'one'", "level"]),
        ({"max_tokens": 0}, ["'one'", "max_tokens"]),
        ({"paraphrases": []}, ["'one'", "paraphrases"]),
        ({"paraphrases": ["a", "a"]}, ["'one'", "two paraphrases are the same"]),
        ({"paraphrases": ["What is it?", "what  is it?"]}, ["'one'", "two paraphrases are the same"]),
        ({"colour": "red"}, ["'one'", "unknown key 'colour'"]),
        ({"paraphrases": ["More of {zero}?"]}, ["'one'", "{zero}", "after"]),
        ({"after": "zero", "paraphrases": ["More of {zero}?"]}, ["'one'", "after", "'zero'"]),
    ],
)
def test_a_mistake_is_named_with_file_prompt_and_field(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        prompts.load(written(tmp_path, {**GOOD, **change}))
    for word in words:
        assert word in str(caught.value)


def test_ids_are_unique(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'one'.*occurs twice"):
        prompts.load(written(tmp_path, GOOD, GOOD))


def test_two_prompts_with_the_same_words_are_one_question(tmp_path: Path) -> None:
    other = {**GOOD, "id": "two", "perspective": "style", "paraphrases": ["How does it look?", "what is  it?"]}
    with pytest.raises(ConfigError, match=r"mine.yaml: the prompts 'one' and 'two' both ask 'what is  it\?'"):
        prompts.load(written(tmp_path, GOOD, other))
    accents = [{**GOOD, "id": name, "paraphrases": [text]} for name, text in (("one", "\xe9?"), ("two", "e\u0301?"))]
    with pytest.raises(ConfigError, match="'one' and 'two'"):
        prompts.load(written(tmp_path, *accents))
    chain = {**GOOD, "id": "more", "after": "one", "paraphrases": ["More of {one}?"]}
    with pytest.raises(ConfigError, match="'more' and 'again'"):
        prompts.load(written(tmp_path, GOOD, chain, {**chain, "id": "again"}))
    assert len(prompts.load(written(tmp_path, GOOD, chain)).prompts) == 2


@pytest.mark.parametrize(
    "marker",
    ["<image>", "<Image>", "</img>", "<image_soft_token>", "<start_of_image>", "<ImageHere>", "<|image_pad|>",
     "<|im_end|>", "<image 1>", "[IMG]", "</s>"],
)  # fmt: skip
def test_a_place_for_a_picture_is_no_part_of_a_question(tmp_path: Path, marker: str) -> None:
    """Engines fail on it at the first picture, each in its way. An answer that a chain goes on from may have one."""
    with pytest.raises(ConfigError) as caught:
        prompts.load(written(tmp_path, {**GOOD, "paraphrases": ["What is it?", f"{marker}\nWhat is that?"]}))
    assert f"a paraphrase holds {marker!r}" in str(caught.value)
    assert "'one'" in str(caught.value)
    chain = {**GOOD, "id": "more", "after": "one", "paraphrases": ["More of {one}?"]}
    assert prompts.load(written(tmp_path, GOOD, chain)).get("more").render(0, f"{marker} a dog") == "More of a dog?"


@pytest.mark.parametrize(
    "text", ["Is it <em>new</em>?", "Is x < y > z?", "Answer in <caption> tags.", "What [if any]?"]
)
def test_other_brackets_may_stand_in_a_question(tmp_path: Path, text: str) -> None:
    assert prompts.load(written(tmp_path, {**GOOD, "paraphrases": [text]})).get("one").paraphrases == (text,)


def test_selecting_names_what_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"'smell'.*background, detail"):
        prompts.load("paper").select(["detail", "smell"])
    with pytest.raises(ConfigError, match=r"'attributes' goes on from 'main_object'"):
        prompts.load("holism").select(["attributes"])
    with pytest.raises(ConfigError, match=r"no prompt set 'poems'.*holism, paper"):
        prompts.load("poems")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"models": [{"model": "a/b", "weight": 2}]}, ["weight", "mix: split"]),
        ({"engine": {"server": {"base_url": "localhost"}}}, ["base_url", "http"]),
        ({"engine": {"server": {"base_url": "http://me:secret@host/v1"}}}, ["api_key_env"]),
        ({"models": ["a/b", "a/b"]}, ["same name"]),
        ({"ray": {"actors": {"min": 3, "max": 2}}}, ["ray.actors", "max is 2"]),
        ({"engine": {"kind": "llama"}}, ["engine.kind", "llama", "vllm"]),
    ],
)
def test_settings_that_cannot_be_are_refused(data: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(CaptionConfig, data)
    for word in words:
        assert word in str(caught.value)
