"""Prompt sets: questions as data, so that a new perspective is a few lines of YAML and no code.

A prompt says what is asked (in several wordings), what its answer is (perspective, granularity, level), how long
it may be and how it must end. A prompt with `after` goes on from another prompt's answer (a chain). A structured
prompt asks once for one JSON object with the answers to several other prompts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from captioning.config import Granularity, Level
from pipeline.config import Section, build, load_yaml
from pipeline.errors import ConfigError

FOLDER = Path(__file__).parent / "prompts"
PLACEHOLDER = re.compile(r"\{(\w+)\}")
# What models' own templates write where a picture stands, or where a turn begins and ends: another one for each model,
# and only as often as there are pictures.
MARKERS = re.compile(
    r"<\|[^<>|]+\|>|</?(?:image|img|im_|video|audio|start_of|end_of)[^<>]*>|</?(?:s|bos|eos|pad|unk)>"
    r"|\[/?(?:IMG|INST|IMG_BREAK|IMG_END)\]",
    re.IGNORECASE,
)


class Prompt(Section):
    """One question and what its answer is."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    perspective: str = Field(min_length=1)
    granularity: Granularity
    level: Level
    max_tokens: int = Field(gt=0)
    ends: Literal["sentence", "phrase", "list", "json"]
    paraphrases: tuple[str, ...] = Field(min_length=1)  # the first is the canonical wording
    after: str | None = None
    answers: tuple[str, ...] = ()  # a structured prompt: the ids of the prompts that its JSON object answers
    temperature: float | None = Field(None, ge=0)  # instead of the configuration's sampling
    top_p: float | None = Field(None, gt=0, le=1)

    @field_validator("paraphrases")
    @classmethod
    def _clean(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not text.strip() for text in texts):
            raise ValueError("a paraphrase is empty")
        if len({words_of(text) for text in texts}) < len(texts):
            raise ValueError("two paraphrases are the same")
        if marker := next((marker for text in texts if (marker := MARKERS.search(text))), None):
            raise ValueError(
                f"a paraphrase holds {marker[0]!r}, which models read as a place for a picture or the end of a turn; "
                "leave it out: every engine puts the picture before the question by itself"
            )
        return texts

    @model_validator(mode="after")
    def _placeholders(self) -> Self:
        allowed = {self.after} if self.after else set()
        for text in self.paraphrases:
            used = set(PLACEHOLDER.findall(text))
            if used - allowed:
                raise ValueError(f"a paraphrase uses {{{min(used - allowed)}}}, which needs 'after: ...' to name it")
            if allowed - used:
                raise ValueError(f"a paraphrase does not use {{{self.after}}}, the answer that it comes after")
        return self

    @model_validator(mode="after")
    def _structured(self) -> Self:
        if (self.ends == "json") != bool(self.answers):
            raise ValueError("'ends: json' and 'answers' (the prompts whose answers the JSON holds) belong together")
        if self.answers and self.after:
            raise ValueError("a prompt with 'answers' cannot come 'after' another one")
        return self

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """What a structured answer must be: an object with one text for each prompt it answers, in their order."""
        if not self.answers:
            return None
        fields = {name: {"type": "string"} for name in self.answers}
        return {
            "type": "object", "properties": fields, "required": list(self.answers), "additionalProperties": False,
        }  # fmt: skip

    def render(self, paraphrase: int, parent: str | None) -> str:
        """The question in one of its wordings; `parent` is the answer that it goes on from."""
        text = self.paraphrases[paraphrase]
        if self.after is None or parent is None:
            return text
        return text.replace(f"{{{self.after}}}", MARKERS.sub("", parent).strip())


class PromptSet(Section):
    """Prompts that belong together."""

    name: str
    description: str = ""
    source: str = ""
    prompts: tuple[Prompt, ...] = Field(min_length=1)

    def select(self, only: Sequence[str] | None) -> tuple[Prompt, ...]:
        """The prompts with these ids, in the set's order; all but the structured ones if `only` is None."""
        if only is None:
            return tuple(prompt for prompt in self.prompts if not prompt.answers) or self.prompts
        known = {prompt.id for prompt in self.prompts}
        if unknown := [name for name in only if name not in known]:
            raise ConfigError(
                f"caption.prompts.only names {unknown[0]!r}, which the set {self.name!r} does not have; "
                f"it has {', '.join(sorted(known))}"
            )
        if not only:
            raise ConfigError(f"caption.prompts.only is empty; name prompts of the set {self.name!r} or leave it out")
        for prompt in self.prompts:
            if prompt.id in only and prompt.after and prompt.after not in only:
                raise ConfigError(
                    f"the prompt {prompt.id!r} goes on from {prompt.after!r}; add that to caption.prompts.only as well"
                )
        return tuple(prompt for prompt in self.prompts if prompt.id in only)

    def get(self, name: str) -> Prompt:
        """The prompt with this id."""
        return next(prompt for prompt in self.prompts if prompt.id == name)


def load(name: str) -> PromptSet:
    """Load a prompt set by built-in name or by path. Errors name the file, the prompt's id and the field."""
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        path = Path(name).expanduser()
        if not path.exists():
            built_in = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
            raise ConfigError(
                f"there is no prompt set {name!r}: neither a file nor one of the built-in ones ({built_in})"
            )
    data = load_yaml(path)
    entries = data.get("prompts")
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: 'prompts' is missing or empty, expected a list of prompts")
    prompts = [_prompt(path, number, entry) for number, entry in enumerate(entries, 1)]
    _check_references(path, prompts)
    return build(PromptSet, {**data, "prompts": prompts}, str(path))


def _prompt(path: Path, number: int, entry: object) -> Prompt:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: prompt {number} is a {type(entry).__name__}, expected a mapping")
    return build(Prompt, entry, f"{path}: prompt {entry.get('id', f'number {number}')!r}")


def words_of(text: str) -> str:
    """What a question asks, whatever its case, spaces and Unicode form."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def _check_references(path: Path, prompts: Sequence[Prompt]) -> None:
    seen: set[str] = set()
    asked: dict[str, str] = {}
    for prompt in prompts:
        if prompt.id in seen:
            raise ConfigError(f"{path}: prompt {prompt.id!r}: 'id' occurs twice; ids are unique in a set")
        if prompt.after and prompt.after not in seen:
            raise ConfigError(
                f"{path}: prompt {prompt.id!r}: 'after' is {prompt.after!r}, expected the id of a prompt above it"
            )
        if unknown := [name for name in prompt.answers if name not in seen]:
            raise ConfigError(
                f"{path}: prompt {prompt.id!r}: 'answers' names {unknown[0]!r}, expected ids of prompts above it"
            )
        seen.add(prompt.id)
        for text in prompt.paraphrases:
            other = asked.setdefault(words_of(text), prompt.id)
            if other != prompt.id:
                raise ConfigError(
                    f"{path}: the prompts {other!r} and {prompt.id!r} both ask {text!r}, which is one question; "
                    "reword one of them or leave it out"
                )
