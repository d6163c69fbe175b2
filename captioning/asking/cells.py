"""A cell is one (prompt, model) pair under a sampling, once per sample: the unit in which captions are missing.

Its id is a hash of everything that decides the answer to it, except the image. So a new prompt, a new model or
one more sample adds cells and touches none of the captions that are there.

A cell that is asked about some images only (see `shares`) is another cell, `question~share`. Its first half is the
cell that is asked about all: captions of the one serve the other, and are not paid for twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from captioning.config import CaptionConfig, SamplingConfig
from captioning.models import Model
from captioning.prompts import Prompt, PromptSet
from pipeline.errors import ConfigError
from pipeline.identity import canonical, caption_id, digest

SEED_BITS = 31
SHARE = "~"


@dataclass(frozen=True)
class Cell:
    """One question to one model. `depth` counts the cells it has to wait for, `parent` is the cell it goes on from.

    With a `container`, a structured prompt, it takes its text out of its parent's JSON, without a question of its own.
    """

    id: str
    prompt: Prompt
    model: Model
    temperature: float
    top_p: float
    seed: int
    max_tokens: int
    max_pixels: int
    sample_index: int
    rotate: bool
    wording: int = 0
    parent: str | None = None
    depth: int = 0
    container: Prompt | None = None
    options: str = ""  # of the engine, as JSON; those that decide the answer

    @property
    def asks(self) -> Prompt:
        """The prompt that is put to the model."""
        return self.container or self.prompt

    @property
    def is_asked(self) -> bool:
        """Whether an engine is asked; a field of a structured answer is read."""
        return self.container is None

    @property
    def question(self) -> str:
        """The id without the share: what is asked, of whichever images."""
        return question_of(self.id)

    @cached_property
    def sampling(self) -> dict[str, Any]:
        """What enters a caption's id; greedy text depends on neither top_p nor seed."""
        return _sampling(self.temperature, self.top_p, self.seed, self.max_tokens, self.options)

    @cached_property
    def sampling_text(self) -> str:
        """The same as the captions table has it."""
        return canonical(self.sampling)

    def paraphrase(self, image: str) -> int:
        """Which wording this image is asked in; further samples and rounds go through the others in turn."""
        if not self.rotate:
            return self.wording
        first = int(digest([image, self.asks.id])[:8], 16)
        return (first + self.sample_index) % len(self.asks.paraphrases)

    def request_seed(self, image: str) -> int | None:
        """A seed of its own for every sampled request, so that a resumed run draws the same; None if greedy."""
        if self.temperature == 0:
            return None
        return int(digest([self.seed, image, self.prompt.id, self.sample_index])[:16], 16) % (1 << SEED_BITS)

    def caption_id(self, image: str, question: str) -> str:
        """Identity of the caption that answers this (rendered) question about this image."""
        model = self.model
        return caption_id(
            image, question, model.name, model.revision, self.sampling, self.max_pixels, self.sample_index
        )

    def describe(self) -> dict[str, Any]:
        """What a manifest says of the cell."""
        prompt = self.prompt
        return {
            "prompt": prompt.id,
            "perspective": prompt.perspective,
            "granularity": prompt.granularity,
            "level": prompt.level,
            "ends": prompt.ends,
            "model": self.model.name,
            "revision": self.model.revision,
            "sampling": self.sampling_text,
            "sample_index": self.sample_index,
        }


def question_of(cell: str) -> str:
    """The first half of a cell's id."""
    return cell.split(SHARE)[0]


def plan(config: CaptionConfig, prompts: PromptSet, models: Sequence[Model], further: int = 0) -> list[Cell]:
    """All cells of a configuration: models × samples × prompts, parents before children.

    Of a `further` round (from 1 on) these are one more sample of each prompt, in the next wording.

    Raises `ConfigError` if several samples are asked for that cannot differ.
    """
    cells: list[Cell] = []
    for model in models:
        if further:
            cells += _cells_of(config, prompts, model, config.samples_per_prompt - 1 + further, further)
            continue
        for sample in range(config.samples_per_prompt):
            cells += _cells_of(config, prompts, model, sample)
    if cells and config.samples_per_prompt > 1 and all(cell.sample_index == 0 for cell in cells):
        raise ConfigError(
            f"caption.samples_per_prompt is {config.samples_per_prompt}, but every sample would be the same; set "
            "caption.sampling.temperature above 0, or caption.paraphrases: rotate"
        )
    return cells


def _cells_of(config: CaptionConfig, prompts: PromptSet, model: Model, sample: int, further: int = 0) -> list[Cell]:
    made: dict[str, Cell] = {}
    for prompt in prompts.select(config.prompts.only):
        drawn = _drawn(config.sampling, prompt)
        if drawn.temperature == 0 and sample >= _wordings(config, prompt):
            continue  # greedy text would only be the same again
        wording = further % len(prompt.paraphrases)
        cell = made[prompt.id] = _cell(config, prompt, model, drawn, sample, wording, made.get(prompt.after or ""))
        for name in prompt.answers:
            made[f"{prompt.id}.{name}"] = _field(cell, prompts.get(name))
    return list(made.values())


def _wordings(config: CaptionConfig, prompt: Prompt) -> int:
    """How many different wordings an image can be asked in."""
    return len(prompt.paraphrases) if config.paraphrases == "rotate" else 1


def _drawn(sampling: SamplingConfig, prompt: Prompt) -> SamplingConfig:
    """The configuration's sampling with what the prompt says of its own."""
    own = {"temperature": prompt.temperature, "top_p": prompt.top_p}
    max_tokens = sampling.max_tokens or prompt.max_tokens
    update = {key: value for key, value in own.items() if value is not None} | {"max_tokens": max_tokens}
    return sampling.model_copy(update=update)


def _cell(
    config: CaptionConfig,
    prompt: Prompt,
    model: Model,
    drawn: SamplingConfig,
    sample: int,
    wording: int,
    parent: Cell | None,
) -> Cell:
    assert drawn.max_tokens is not None
    rotate = config.paraphrases == "rotate"
    options = canonical(config.engine.deciding_options) if config.engine.deciding_options else ""
    identity = {
        "prompt": [prompt.id, prompt.perspective, prompt.granularity, prompt.level],
        "texts": list(prompt.paraphrases if rotate else prompt.paraphrases[wording : wording + 1]),
        "model": [model.name, model.revision],
        "sampling": _sampling(drawn.temperature, drawn.top_p, drawn.seed, drawn.max_tokens, options),
        "max_pixels": config.max_pixels,
        "sample": sample,
        "parent": parent.id if parent else None,
    }
    if prompt.answers:
        identity["answers"] = list(prompt.answers)
    return Cell(
        digest(identity), prompt, model, drawn.temperature, drawn.top_p, drawn.seed, drawn.max_tokens,
        config.max_pixels, sample, rotate, wording, parent.id if parent else None, parent.depth + 1 if parent else 0,
        options=options,
    )  # fmt: skip


def _field(parent: Cell, prompt: Prompt) -> Cell:
    """The cell of one field of a structured answer: another prompt's answer, without a question of its own."""
    identity = digest([parent.id, prompt.id, prompt.perspective, prompt.granularity, prompt.level])
    return replace(
        parent, id=identity, prompt=prompt, parent=parent.id, depth=parent.depth + 1, container=parent.prompt
    )  # fmt: skip


def _sampling(temperature: float, top_p: float, seed: int, max_tokens: int, options: str) -> dict[str, Any]:
    """How an answer is drawn. Without options it is what it was before there were any."""
    greedy = {"temperature": 0, "max_tokens": max_tokens}
    sampling = greedy if temperature == 0 else {**greedy, "temperature": temperature, "top_p": top_p, "seed": seed}
    return sampling | ({"options": json.loads(options)} if options else {})


def short_hash(ids: Iterable[str]) -> str:
    """Eight digits that stand for a set of cells in a part's name."""
    return digest(sorted(ids))[:8]
