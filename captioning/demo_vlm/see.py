"""Runs phase A: trains the vision tower on attributes and stores it, resuming from its own checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPVisionModel

from captioning.demo_vlm.attributes import AttributeHeads, normalise, patch_tokens, pool_targets
from captioning.demo_vlm.loading import DemoVlm
from captioning.demo_vlm.model import fresh_tower
from captioning.demo_vlm.schedule import apply_step, batches, learning_rate, make_optimizer
from pipeline.errors import ConfigError
from pipeline.progress import Progress

_SAVE_EVERY = 200


@dataclass(frozen=True)
class SeeSettings:
    """Length and pace of phase A."""

    steps: int = 4600
    batch: int = 64
    peak_rate: float = 1.2e-3
    seed: int = 0


def take_tower(weights: Path, folder: Path) -> None:
    """Start phase B in a folder from the tower of a demo VLM. Raises ConfigError where it has a tower of phase A."""
    path = folder / "tower.pt"
    if path.exists():
        if "optimizer" in torch.load(path, map_location="cpu", weights_only=True):
            raise ConfigError(f"{path} was trained here; leave out --tower to go on with it, or name another --out")
        return
    tower = DemoVlm.load(weights).model.float().model.vision_tower
    heads = AttributeHeads(tower.config.hidden_size)
    partial = path.with_suffix(".partial")
    torch.save({"tower": tower.state_dict(), "heads": heads.state_dict()}, partial)
    partial.replace(path)


def train_tower(
    folder: Path, images: np.ndarray, patches: np.ndarray, settings: SeeSettings, device: torch.device
) -> CLIPVisionModel:
    """The tower after phase A; `folder/tower.pt` is its checkpoint."""
    torch.manual_seed(settings.seed)
    tower = fresh_tower().to(device)
    heads = AttributeHeads(tower.config.hidden_size).to(device)
    optimizer = make_optimizer((tower, heads))
    path, step = folder / "tower.pt", 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        if "optimizer" not in state:
            raise ConfigError(f"{path} was taken from other weights; give --tower again, or name another --out")
        tower.load_state_dict(state["tower"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    if step >= settings.steps:
        return tower
    classes, present = pool_targets(len(images))
    progress = Progress("phase A", settings.steps, "steps", done=step)
    for rows in batches(len(images), settings.batch, step, settings.seed):
        index = rows.sort().values.numpy()
        pixels = normalise(torch.from_numpy(images[index]).to(device))
        labels = torch.from_numpy(patches[index]).flatten(2).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss, seen = heads(
                patch_tokens(tower, pixels), labels, classes[index].to(device), present[index].to(device)
            )
        loss.backward()
        apply_step(optimizer, learning_rate(step, settings.steps, settings.peak_rate))
        step += 1
        notes = " ".join(f"{name} {100 * value:.0f}" for name, value in seen.items())
        progress.update(note=f"loss {float(loss.detach()):.3f} accuracy %: {notes}")
        if step % _SAVE_EVERY == 0 or step == settings.steps:
            state = {"tower": tower.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state | {"step": step}, path)
        if step == settings.steps:
            break
    progress.close()
    return tower
