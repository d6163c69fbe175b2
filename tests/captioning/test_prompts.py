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
