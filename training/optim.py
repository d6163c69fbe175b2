"""What is trained and how fast: AdamW with CLIP's decay rules, frozen towers, a learning rate by step and by depth."""

import math
import re

import torch
from torch import nn

from training.config import RunConfig
from training.model import HolisticCLIP

# Embeddings of position and class are offsets, not weights: pulling them to zero only fights what they encode. The
# branches' class embeddings, queries and biases are two-dimensional, so a rule by dimension alone would decay them
# (PAPER 4).
NEVER_DECAYED = ("class_embedding", "branch_queries", "positional_embedding", "logit_scale", "bias")
STEMS = ("visual.conv1", "visual.class_embedding", "visual.positional_embedding", "visual.ln_pre")
TEXT_STEMS = ("token_embedding", "positional_embedding")
TEXT_TOWER = (*TEXT_STEMS, "transformer", "ln_final", "text_projection")
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.")


def freeze(model: HolisticCLIP, config: RunConfig) -> None:
    """Takes the frozen towers out of training; the logit scale, and what branches own beside others, stays in."""
    own = _owned_by_branches(model)
    for name, parameter in model.named_parameters():
        image = "image" in config.freeze and name.startswith("visual.") and name not in own
        text = "text" in config.freeze and name.startswith(TEXT_TOWER)
        parameter.requires_grad_(not (image or text))


def make_optimizer(model: HolisticCLIP, config: RunConfig) -> torch.optim.AdamW:
    """Decays matrices; not norms, biases, the logit scale, nor class and position embeddings.

    `lr_scale` of a group is its share of the learning rate.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or name.endswith(NEVER_DECAYED)
            decay = 0.0 if plain else config.weight_decay
            groups.setdefault((_lr_scale(model, name, config.layer_decay), decay), []).append(parameter)
    in_order = [
        {"params": parameters, "weight_decay": decay, "lr_scale": scale}
        for (scale, decay), parameters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
    ]
    return torch.optim.AdamW(in_order, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Each group's share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def learning_rate(config: RunConfig, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero. `step` counts from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def _lr_scale(model: HolisticCLIP, name: str, layer_decay: float) -> float:
    """The earlier a layer the slower it learns, as it holds what is common; heads and new ones have the full rate."""
    if layer_decay == 1.0 or name in _owned_by_branches(model):
        return 1.0
    image, text = len(model.visual.transformer.resblocks), len(model.transformer.resblocks)
    if block := _BLOCK.match(name):
        return layer_decay ** ((image if block[1] else text) - int(block[2]))
    if name.startswith(STEMS):
        return layer_decay ** (image + 1)
    return layer_decay ** (text + 1) if name.startswith(TEXT_STEMS) else 1.0


def _owned_by_branches(model: HolisticCLIP) -> set[str]:
    """Parameters with a row for each branch; of a single branch, which is plain CLIP, none."""
    return {f"visual.{name}" for name in model.visual.branch_parameters} if len(model.slots) > 1 else set()
