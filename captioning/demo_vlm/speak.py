"""Phase B: the whole LLaVA learns to answer, the tower keeping its attribute lessons on the side.

One look at an image serves ten questions: the language model reads the image's tokens once, and every exchange
continues from there, exactly as it will in use with a prefix cache.
"""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import DynamicCache, LlavaForConditionalGeneration

from captioning.demo_vlm.attributes import AttributeHeads, normalise, patch_tokens, pool_targets
from captioning.demo_vlm.conversations import ConversationGroup, Exchange, PromptBook, collate, converse, pick_prompts
from captioning.demo_vlm.model import IMAGE_TOKENS
from captioning.demo_vlm.pool import FIRST_SEED
from captioning.demo_vlm.schedule import apply_step, batches, learning_rate, make_optimizer
from pipeline.demo_world.language import PROMPT_IDS
from pipeline.demo_world.render import render
from pipeline.demo_world.scene import HELDOUT_OFFSET, sample, truth
from pipeline.errors import ConfigError
from pipeline.progress import Progress

PREFIX = 1 + IMAGE_TOKENS  # <|user|> and the image
_SAVE_EVERY = 100
_CONTROL_EVERY = 200
_CONTROL_SCENES = 32
_CONTROL_SEED = HELDOUT_OFFSET + (1 << 39)  # neither training nor the demo's held-out scenes


@dataclass(frozen=True)
class SpeakSettings:
    """Length and pace of phase B. The tower learns at `tower_rate` times the pace of the rest."""

    steps: int = 3800
    batch: int = 16
    peak_rate: float = 1.5e-3
    tower_rate: float = 0.12
    attribute_weight: float = 0.3
    seed: int = 0


def answer_loss(
    model: LlavaForConditionalGeneration, patch_BPD: torch.Tensor, groups: list[ConversationGroup], user_token: int
) -> torch.Tensor:
    """Cross entropy (N,) of every answer token in all groups. An image is read once, its exchanges share that."""
    inner, device = model.model, patch_BPD.device
    language, embed = inner.language_model, inner.language_model.embed_tokens
    user_B1E = embed(torch.full((len(patch_BPD), 1), user_token, device=device))
    prefix_BPE = torch.cat([user_B1E, inner.multi_modal_projector(patch_BPD)], dim=1)
    read = DynamicCache()
    language(inputs_embeds=prefix_BPE, attention_mask=_causal(0, PREFIX, device), past_key_values=read)
    losses = []
    for group in groups:
        past = DynamicCache()
        for index, layer in enumerate(read.layers):
            past.update(layer.keys[group.image_R], layer.values[group.image_R], index)
        length = group.token_RT.shape[1]
        states_RTE = language(
            inputs_embeds=embed(group.token_RT), attention_mask=_causal(PREFIX, length, device), past_key_values=past,
            position_ids=torch.arange(PREFIX, PREFIX + length, device=device)[None],
        ).last_hidden_state  # fmt: skip
        learn = group.learn_RT[:, 1:]  # the state before a token predicts it
        logits_NV = model.lm_head(states_RTE[:, :-1][learn]).float()
        losses.append(F.cross_entropy(logits_NV, group.token_RT[:, 1:][learn], reduction="none"))
    return torch.cat(losses)


def _causal(past: int, length: int, device: torch.device) -> torch.Tensor:
    """Additive mask (1, 1, length, past + length): everything past may be seen, nothing to come."""
    mask = torch.full((length, length), float("-inf"), device=device, dtype=torch.bfloat16).triu(1)
    return F.pad(mask, (past, 0))[None, None]


def image_control(
    model: LlavaForConditionalGeneration, tokenizer: Any, book: PromptBook, device: torch.device
) -> dict[str, tuple[float, float]]:
    """Per prompt, the loss with the right image and with another scene's: a model that looks has a wide gap."""
    scenes = [sample(_CONTROL_SEED + index) for index in range(_CONTROL_SCENES)]
    pixels = normalise(torch.from_numpy(np.stack([np.asarray(render(scene)) for scene in scenes])).to(device))
    user = tokenizer.convert_tokens_to_ids("<|user|>")
    losses: dict[str, tuple[float, float]] = {}
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        patches = patch_tokens(model.model.vision_tower, pixels)
        for prompt in PROMPT_IDS:
            rng = np.random.default_rng(0)
            talks = [converse(truth(scene), book, tokenizer, [prompt], rng) for scene in scenes]
            groups = _on(collate(talks, tokenizer.pad_token_id), device)
            right, wrong = (float(answer_loss(model, p, groups, user).mean()) for p in (patches, patches.roll(1, 0)))
            losses[prompt] = (round(right, 3), round(wrong, 3))
    return losses


def _on(groups: list[ConversationGroup], device: torch.device) -> list[ConversationGroup]:
    return [ConversationGroup(g.token_RT.to(device), g.learn_RT.to(device), g.image_R.to(device)) for g in groups]


class Speaker:
    """Everything phase B trains, and its checkpoint `folder/speaker.pt`."""

    def __init__(self, folder: Path, model: LlavaForConditionalGeneration, device: torch.device) -> None:
        self.path, self.model, self.device, self.step = folder / "speaker.pt", model.to(device), device, 0
        tower = model.model.vision_tower
        self.heads = AttributeHeads(tower.config.hidden_size).to(device)
        self.optimizer = make_optimizer((self.heads, model.model.multi_modal_projector, model.model.language_model))
        self.tower_optimizer = make_optimizer((tower,))
        if self.path.exists():
            state = torch.load(self.path, map_location=device, weights_only=True)
            self._check_size(state["model"])
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step = state["step"]
        else:
            start = torch.load(folder / "tower.pt", map_location=device, weights_only=True)
            tower.load_state_dict(start["tower"])
            self.heads.load_state_dict(start["heads"])

    def _parts(self) -> dict[str, Any]:
        optimizers = {"optimizer": self.optimizer, "tower_optimizer": self.tower_optimizer}
        return {"model": self.model, "heads": self.heads, **optimizers}

    def _check_size(self, state: dict[str, torch.Tensor]) -> None:
        norms = (f"model.language_model.layers.{layer}.input_layernorm.weight" for layer in itertools.count())
        layers = sum(1 for _ in itertools.takewhile(state.__contains__, norms))
        width = state["lm_head.weight"].shape[1]
        text = self.model.config.text_config
        if (width, layers) != (text.hidden_size, text.num_hidden_layers):
            raise ConfigError(
                f"{self.path} has a language model of width {width} and {layers} layers, asked for is one of width "
                f"{text.hidden_size} and {text.num_hidden_layers} layers; give --text-width {width} --text-layers "
                f"{layers} to go on with it, or name another --out"
            )

    def save(self) -> None:
        """Replaces the checkpoint in one step, so that stopping at any moment leaves a whole one."""
        partial = self.path.with_suffix(".partial")
        torch.save({name: part.state_dict() for name, part in self._parts().items()} | {"step": self.step}, partial)
        partial.replace(self.path)

    def update(self, loss: torch.Tensor, settings: SpeakSettings) -> None:
        """One step of both optimisers."""
        rate = learning_rate(self.step, settings.steps, settings.peak_rate)
        loss.backward()
        apply_step(self.optimizer, rate)
        apply_step(self.tower_optimizer, rate * settings.tower_rate)
        self.step += 1


def train_speaker(
    folder: Path, model: LlavaForConditionalGeneration, tokenizer: Any, images: np.ndarray, patches: np.ndarray,
    settings: SpeakSettings, device: torch.device,
) -> None:  # fmt: skip
    """Trains `model` in place from the tower of phase A, resuming from its own checkpoint.

    Appends one line of per-prompt losses with right and wrong images to `folder/control.jsonl` now and then.
    """
    torch.manual_seed(settings.seed)
    speaker = Speaker(folder, model, device)
    if speaker.step >= settings.steps:
        return
    classes, present = pool_targets(len(images))
    book, user = PromptBook(), tokenizer.convert_tokens_to_ids("<|user|>")
    progress = Progress("phase B", settings.steps, "steps", done=speaker.step)
    for rows in batches(len(images), settings.batch, speaker.step, settings.seed + 1):
        index = rows.sort().values.numpy()
        pixels = normalise(torch.from_numpy(images[index]).to(device))
        labels = torch.from_numpy(patches[index]).flatten(2).to(device)
        talks = _talks(index, book, tokenizer, settings.seed + speaker.step)
        groups = _on(collate(talks, tokenizer.pad_token_id), device)
        with torch.autocast(device.type, torch.bfloat16):
            seen_BPD = patch_tokens(model.model.vision_tower, pixels)
            spoken = answer_loss(model, seen_BPD, groups, user).mean()
            lesson, seen = speaker.heads(seen_BPD, labels, classes[index].to(device), present[index].to(device))
        speaker.update(spoken + settings.attribute_weight * lesson, settings)
        notes = " ".join(f"{name} {100 * seen[name]:.0f}" for name in ("patch", "shape", "all_present"))
        progress.update(note=f"loss {float(spoken.detach()):.3f} accuracy %: {notes}")
        last = speaker.step == settings.steps
        if speaker.step % _CONTROL_EVERY == 0 or last:
            control = image_control(model, tokenizer, book, device)
            with (folder / "control.jsonl").open("a") as log:
                log.write(json.dumps({"step": speaker.step, "time": time.time(), "loss": control}) + "\n")
        if speaker.step % _SAVE_EVERY == 0 or last:
            speaker.save()
        if last:
            break
    progress.close()


def _talks(index: np.ndarray, book: PromptBook, tokenizer: Any, seed: int) -> list[list[Exchange]]:
    rng = np.random.default_rng((seed, 31337))
    truths = [truth(sample(FIRST_SEED + int(row))) for row in index]
    return [converse(t, book, tokenizer, pick_prompts(t, rng), rng) for t in truths]
