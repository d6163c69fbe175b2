"""Questions and answers about scenes: what phase B trains on."""

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
EXCHANGES = 10  # about each image
_GROUP_LENGTHS = (32, 48, 100, 1024)
_JSON_SHARE = 0.08  # of images that practise the long JSON answer
# Longer and harder answers are asked for more often, the easy ones less; all others have weight 1.
_WEIGHTS = {
    "nouns": 4.0, "other_objects": 2.5, "detail": 2.0, "relations": 2.0, "layout": 2.0, "text": 1.0,
    "main_object": 1.5, "attributes": 0.5, "action": 0.5, "background": 0.5, "style": 0.5, "mood": 0.5, "purpose": 0.5,
}  # fmt: skip
_SIGNED = 8.0
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
class Exchange:
    """A question and its answer as tokens (T,); `learn` (T,) marks the tokens to be predicted."""

    token: np.ndarray
    learn: np.ndarray


def pick_prompts(t: Truth, rng: np.random.Generator) -> list[str]:
    """What is asked about one image: EXCHANGES different prompts, or now and then the long JSON answer alone.

    Where there is a sign it is asked about far more often: otherwise "there is no text" stays the better guess.
    """
    if rng.random() < _JSON_SHARE:
        return ["everything"]
    plain = [prompt for prompt in PROMPT_IDS if prompt != "everything"]
    weights = np.array([_WEIGHTS.get(prompt, 1.0) for prompt in plain])
    weights[plain.index("text")] *= _SIGNED if t["sign"] else 1.0
    return [str(prompt) for prompt in rng.choice(plain, EXCHANGES, replace=False, p=weights / weights.sum())]


def converse(
    t: Truth, book: PromptBook, tokenizer: Any, prompts: list[str], rng: np.random.Generator
) -> list[Exchange]:
    """One exchange per prompt about the scene, without the image that comes before each."""
    end, assistant = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|assistant|>")
    texts = [text for prompt in prompts for text in book.exchange(t, prompt, rng)]
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [
        Exchange(
            np.array([*question, assistant, *reply, end], np.int64),
            np.array([False] * (len(question) + 1) + [True] * (len(reply) + 1)),
        )
        for question, reply in zip(tokens[::2], tokens[1::2], strict=True)
    ]


@dataclass(frozen=True)
class ConversationGroup:
    """Exchanges of similar length, padded at the end: (R, T) each, and (R,) the row of the image they are about."""

    token_RT: torch.Tensor
    learn_RT: torch.Tensor
    image_R: torch.Tensor


def collate(conversations: list[list[Exchange]], pad: int) -> list[ConversationGroup]:
    """Sorts the exchanges of a batch of images into groups by length, so that little is padded."""
    rows = [(image, exchange) for image, exchanges in enumerate(conversations) for exchange in exchanges]
    groups, shortest = [], 0
    for longest in _GROUP_LENGTHS:
        chosen = [(image, e) for image, e in rows if shortest < len(e.token) <= longest]
        if chosen:
            length = max(len(e.token) for _, e in chosen)
            token = [np.pad(e.token, (0, length - len(e.token)), constant_values=pad) for _, e in chosen]
            learn = [np.pad(e.learn, (0, length - len(e.learn))) for _, e in chosen]
            image_R = torch.tensor([image for image, _ in chosen])
            groups.append(
                ConversationGroup(torch.from_numpy(np.stack(token)), torch.from_numpy(np.stack(learn)), image_R)
            )
        shortest = longest
    return groups
