"""What both training phases share: the optimiser, its schedule, and the order in which scenes are seen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn

WEIGHT_DECAY = 0.05
WARMUP_STEPS = 60


def make_optimizer(modules: Iterable[nn.Module]) -> torch.optim.AdamW:
    """AdamW that spares norms, biases and embeddings of position from weight decay."""
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for module in modules:
        for parameter in module.parameters():
            (decayed if parameter.ndim >= 2 else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine down to a fiftieth of the peak."""
    if step < WARMUP_STEPS:
        return peak * (step + 1) / WARMUP_STEPS
    share = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def apply_step(optimizer: torch.optim.AdamW, rate: float) -> None:
    """One update at this learning rate, with clipped gradients."""
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def batches(scenes: int, batch: int, first_step: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless rows of the pool, shuffled anew in every epoch; starts at `first_step` so that a resumed run goes on."""
    per_epoch = scenes // batch
    step = first_step
    while True:
        order = torch.randperm(scenes, generator=torch.Generator().manual_seed(seed + step // per_epoch))
        for start in range(step % per_epoch, per_epoch):
            yield order[start * batch : (start + 1) * batch]
            step += 1
