"""Phase B: the whole LLaVA learns to answer, the tower keeping its attribute lessons on the side.

One look at an image serves about nine questions: the exchanges stand behind each other after the image's tokens, a
block mask keeps them apart, and positions restart, so each token sees exactly what it will see in use.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlavaForConditionalGeneration

from captioning.demo_vlm.attributes import AttributeHeads, normalise, patch_tokens, pool_targets
from captioning.demo_vlm.conversations import Packed, PackedBatch, PromptBook, collate, pack, pick_prompts
from captioning.demo_vlm.model import IMAGE_TOKENS
from captioning.demo_vlm.pool import FIRST_SEED
from captioning.demo_vlm.schedule import apply_step, batches, learning_rate, make_optimizer
from pipeline.demo_world.language import PROMPT_IDS
from pipeline.demo_world.render import render
from pipeline.demo_world.scene import HELDOUT_OFFSET, sample, truth
from pipeline.progress import Progress

PREFIX = 1 + IMAGE_TOKENS  # <|user|> and the image
_SAVE_EVERY = 200
_CONTROL_EVERY = 400
_CONTROL_SCENES = 32
_CONTROL_SEED = HELDOUT_OFFSET + (1 << 39)  # neither training nor the demo's held-out scenes


@dataclass(frozen=True)
class SpeakSettings:
    """Length and pace of phase B. The tower learns at `tower_rate` times the pace of the rest."""

    steps: int = 2800
    batch: int = 16
    peak_rate: float = 1.5e-3
    tower_rate: float = 0.25
    attribute_weight: float = 0.3
    seed: int = 0


def answer_loss(
    model: LlavaForConditionalGeneration, patch_BPD: torch.Tensor, batch: PackedBatch, user_token: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of each answer token (N,) and which row and column of the batch it belongs to (N, 2)."""
    inner = model.model
    image_BPE = inner.multi_modal_projector(patch_BPD)
    embed = inner.language_model.embed_tokens
    user_B1E = embed(torch.full((len(patch_BPD), 1), user_token, device=patch_BPD.device))
    inputs_BLE = torch.cat([user_B1E, image_BPE, embed(batch.token_BT)], dim=1)
    bias = torch.zeros(batch.mask_B1LL.shape, device=patch_BPD.device)
    bias.masked_fill_(~batch.mask_B1LL, torch.finfo(torch.float32).min)
    states_BLE = inner.language_model(
        inputs_embeds=inputs_BLE, attention_mask=bias, position_ids=batch.position_BL, use_cache=False
    ).last_hidden_state
    where = batch.learn_BT.nonzero()
    predicting = states_BLE[where[:, 0], where[:, 1] + PREFIX - 1]  # the state one before predicts the token
    logits = model.lm_head(predicting).float()
    return F.cross_entropy(logits, batch.token_BT[where[:, 0], where[:, 1]], reduction="none"), where


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
            packs = [pack(truth(scene), book, tokenizer, PREFIX, [prompt], rng) for scene in scenes]
            batch = _on(collate(packs, PREFIX, tokenizer.pad_token_id), device)
            right, wrong = (float(answer_loss(model, p, batch, user)[0].mean()) for p in (patches, patches.roll(1, 0)))
            losses[prompt] = (round(right, 3), round(wrong, 3))
    return losses


def _on(batch: PackedBatch, device: torch.device) -> PackedBatch:
    return PackedBatch(*(tensor.to(device) for tensor in (
        batch.token_BT, batch.position_BL, batch.learn_BT, batch.mask_B1LL
    )))  # fmt: skip


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
        batch = _on(
            collate(_packs(index, book, tokenizer, settings.seed + speaker.step), PREFIX, tokenizer.pad_token_id),
            device,
        )
        with torch.autocast(device.type, torch.bfloat16):
            seen_BPD = patch_tokens(model.model.vision_tower, pixels)
            spoken = answer_loss(model, seen_BPD, batch, user)[0].mean()
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


def _packs(index: np.ndarray, book: PromptBook, tokenizer: Any, seed: int) -> list[Packed]:
    rng = np.random.default_rng((seed, 31337))
    truths = [truth(sample(FIRST_SEED + int(row))) for row in index]
    return [pack(t, book, tokenizer, PREFIX, pick_prompts(rng), rng) for t in truths]
