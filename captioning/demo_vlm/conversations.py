"""Questions and answers about scenes: what phase B trains on, and how several share one look at the image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from pipeline.demo_world.language import PROMPT_IDS, answer, answers
from pipeline.demo_world.vocabulary import COLORS, SHAPES, SIZES

PROMPT_SETS = ("paper", "holism")
TAIL_TOKENS = 300  # of questions and answers after one image; about nine exchanges
_JSON_SHARE = 0.07  # of images that practise the long JSON answer
# Longer and harder answers are asked for more often; all others have weight 1.
_WEIGHTS = {"nouns": 2.0, "other_objects": 2.0, "detail": 2.0, "relations": 1.5, "layout": 1.5, "main_object": 1.5}
_DISTORTED = 0.3  # share of follow-up questions that quote the main object wrongly: the answer stays with the image
Truth = dict[str, Any]


class PromptBook:
    """The paraphrases of every prompt of all sets, read from the project's prompt files."""

    def __init__(self) -> None:
        folder = Path(__file__).parent.parent / "prompts"
        self.paraphrases: dict[str, list[str]] = {}
        for name in PROMPT_SETS:
            for prompt in yaml.safe_load((folder / f"{name}.yaml").read_text())["prompts"]:
                known = self.paraphrases.setdefault(prompt["id"], [])
                known += [text for text in prompt["paraphrases"] if text not in known]

    def exchange(self, t: Truth, prompt_id: str, rng: np.random.Generator) -> tuple[str, str]:
        """A question in one of its wordings, and a true answer."""
        wordings = self.paraphrases[prompt_id]
        paraphrase = int(rng.integers(len(wordings)))
        question = wordings[paraphrase]
        if "{main_object}" in question:
            question = question.replace("{main_object}", _quoted_main_object(t, rng))
        return question, answer(t, prompt_id, rng, paraphrase)


def _quoted_main_object(t: Truth, rng: np.random.Generator) -> str:
    """How an earlier answer named the main object: now and then with a wrong size, colour or shape."""
    text = answers(t, "main_object")[rng.integers(3)]
    if rng.random() < _DISTORTED:
        words: tuple[str, ...] = (tuple(SIZES), tuple(COLORS), SHAPES)[rng.integers(3)]
        known = next((word for word in words if f" {word}" in text), None)
        if known is not None:
            text = text.replace(known, words[rng.integers(len(words))])
    return text


@dataclass(frozen=True)
class Packed:
    """One image's exchanges behind each other; the image's tokens stand before them and are not in here.

    Shapes: (T,) each. `segment` counts exchanges from 1, `position` restarts after the image in each of them, and
    `learn` marks the tokens to be predicted.
    """

    token: np.ndarray
    segment: np.ndarray
    position: np.ndarray
    learn: np.ndarray


def pick_prompts(rng: np.random.Generator) -> list[str]:
    """The order in which prompts are asked about one image."""
    if rng.random() < _JSON_SHARE:
        return ["everything"]
    plain = [prompt for prompt in PROMPT_IDS if prompt != "everything"]
    weights = np.array([_WEIGHTS.get(prompt, 1.0) for prompt in plain])
    return [str(prompt) for prompt in rng.choice(plain, len(plain), replace=False, p=weights / weights.sum())]


def pack(
    t: Truth, book: PromptBook, tokenizer: Any, prefix: int, prompts: list[str], rng: np.random.Generator
) -> Packed:
    """Exchanges about one image until TAIL_TOKENS are reached; at least one. `prefix` tokens stand before them."""
    exchanges = [book.exchange(t, prompt, rng) for prompt in prompts]
    end, assistant = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|assistant|>")
    texts = tokenizer([text for exchange in exchanges for text in exchange], add_special_tokens=False)["input_ids"]
    columns: list[list[int]] = [[], [], [], []]
    for segment, (question, reply) in enumerate(zip(texts[::2], texts[1::2], strict=True), start=1):
        tokens = [*question, assistant, *reply, end]
        if columns[0] and len(columns[0]) + len(tokens) > TAIL_TOKENS:
            break
        learn = [0] * (len(question) + 1) + [1] * (len(reply) + 1)
        rows = (tokens, [segment] * len(tokens), list(range(prefix, prefix + len(tokens))), learn)
        for column, row in zip(columns, rows, strict=True):
            column.extend(row)
    return Packed(*(np.array(column, np.int64) for column in columns))


@dataclass(frozen=True)
class PackedBatch:
    """Padded `Packed`s; with P tokens of the image before them, L = P + T. The mask is True where a token may look."""

    token_BT: torch.Tensor
    position_BL: torch.Tensor
    learn_BT: torch.Tensor
    mask_B1LL: torch.Tensor


def collate(packs: list[Packed], prefix: int, pad: int) -> PackedBatch:
    """Pads to the longest; every exchange sees the image and itself, never another exchange."""
    length = max(len(packed.token) for packed in packs)

    def padded(name: str, fill: int) -> torch.Tensor:
        rows = [getattr(packed, name) for packed in packs]
        return torch.from_numpy(np.stack([np.pad(row, (0, length - len(row)), constant_values=fill) for row in rows]))

    segment = torch.cat([torch.zeros(len(packs), prefix, dtype=torch.long), padded("segment", -1)], dim=1)
    position = torch.cat([torch.arange(prefix).expand(len(packs), -1), padded("position", 0)], dim=1)
    same = segment[:, :, None] == segment[:, None, :]
    allowed = (same | (segment[:, None, :] == 0)) & torch.ones(prefix + length, prefix + length).tril().bool()
    return PackedBatch(padded("token", pad), position, padded("learn", 0).bool(), allowed[:, None])
