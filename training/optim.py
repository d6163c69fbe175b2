"""AdamW with CLIP's decay rules, and the learning rate as a function of the step."""

import math

import torch
from torch import nn

from training.config import RunConfig

# Embeddings of position and class are offsets, not weights: pulling them to zero only fights what they encode. The
# branches' class embeddings, queries and biases are two-dimensional, so a rule by dimension alone would decay them
# (PAPER 4).
NEVER_DECAYED = ("class_embedding", "branch_queries", "positional_embedding", "logit_scale", "bias")


def make_optimizer(model: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """Decays matrices; not norms, biases, the logit scale, nor class and position embeddings."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or name.endswith(NEVER_DECAYED)
            (free if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def learning_rate(config: RunConfig, step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine to zero. `step` counts from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))
