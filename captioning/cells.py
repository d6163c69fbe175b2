"""A cell is one (prompt, model) pair under a sampling, once per sample: the unit in which captions are missing.

Its id is a hash of everything that decides the answer to it, except the image. So a new prompt, a new model or
one more sample adds cells and touches none of the captions that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from captioning.config import CaptionConfig
from captioning.models import Model
from captioning.prompts import Prompt
from pipeline.identity import canonical, caption_id, digest

SEED_BITS = 31


@dataclass(frozen=True)
class Cell:
    """One question to one model. `depth` counts the chain's links before it, `parent` is the cell it goes on from."""

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
    parent: str | None
    depth: int

    @property
    def sampling(self) -> dict[str, Any]:
        """What enters a caption's id; greedy text depends on neither top_p nor seed."""
        return _sampling(self.temperature, self.top_p, self.seed, self.max_tokens)

    def paraphrase(self, image: str) -> int:
        """Which wording this image is asked in; further samples go through the others in turn."""
        if not self.rotate:
            return 0
        first = int(digest([image, self.prompt.id])[:8], 16)
        return (first + self.sample_index) % len(self.prompt.paraphrases)

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
            "sampling": canonical(self.sampling),
            "sample_index": self.sample_index,
        }


def plan(config: CaptionConfig, prompts: Sequence[Prompt], models: Sequence[Model]) -> list[Cell]:
    """All cells of a configuration: models × samples × prompts, parents before children."""
    cells: list[Cell] = []
    for model in models:
        for sample in range(config.samples_per_prompt):
            chain: dict[str, Cell] = {}
            for prompt in prompts:
                chain[prompt.id] = _cell(config, prompt, model, sample, chain.get(prompt.after or ""))
            cells += chain.values()
    return cells


def _cell(config: CaptionConfig, prompt: Prompt, model: Model, sample: int, parent: Cell | None) -> Cell:
    drawn = config.sampling
    max_tokens = drawn.max_tokens or prompt.max_tokens
    rotate = config.paraphrases == "rotate"
    identity = {
        "prompt": [prompt.id, prompt.perspective, prompt.granularity, prompt.level],
        "texts": list(prompt.paraphrases if rotate else prompt.paraphrases[:1]),
        "model": [model.name, model.revision],
        "sampling": _sampling(drawn.temperature, drawn.top_p, drawn.seed, max_tokens),
        "max_pixels": config.max_pixels,
        "sample": sample,
        "parent": parent.id if parent else None,
    }
    return Cell(
        digest(identity), prompt, model, drawn.temperature, drawn.top_p, drawn.seed, max_tokens, config.max_pixels,
        sample, rotate, parent.id if parent else None, parent.depth + 1 if parent else 0,
    )  # fmt: skip


def _sampling(temperature: float, top_p: float, seed: int, max_tokens: int) -> dict[str, Any]:
    if temperature == 0:
        return {"temperature": 0, "max_tokens": max_tokens}
    return {"temperature": temperature, "top_p": top_p, "seed": seed, "max_tokens": max_tokens}


def short_hash(ids: Iterable[str]) -> str:
    """Eight digits that stand for a set of cells in a part's name."""
    return digest(sorted(ids))[:8]
