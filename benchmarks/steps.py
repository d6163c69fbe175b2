"""Training steps to measure: the trainer's own, and those of open_clip's loop on the same towers and pictures.

Both steps take batches that are on the device already, so that loaders are measured apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import open_clip
import torch
from open_clip_train.scheduler import cosine_lr
from open_clip_train.train import train_one_epoch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.made_up import Data
from pipeline.config import build
from pipeline.storage import Location
from training import trainer
from training.augment import crop_and_normalise
from training.batches import Batch
from training.config import RunConfig
from training.flops import peak_flops
from training.ranks import Ranks
from training.slots import DEFAULT_SLOTS
from training.towers import TOWER_KEYS, resolve_architecture

LR, WARMUP = 1e-4, 10


def recipe(model: str | dict[str, Any], captions: int, images: int, precision: str, **further: Any) -> RunConfig:
    """As many class tokens as captions; with one it is plain CLIP with CLIP's loss."""
    losses = {"o2o": 1.0} if captions == 1 else {"m2m": 1.0, "served": 1.0}
    branches = {"branch_kind": "cls", "projection": "shared"}
    settings = {"model": model, "slots": list(DEFAULT_SLOTS[:captions]), "losses": losses, "global_batch": images}
    settings |= {"lr": LR, "warmup_steps": WARMUP, "precision": precision, "workers": 0, "epochs": 100_000}
    return build(RunConfig, {**settings, **branches, **further})


def started(config: RunConfig, data: Data, folder: str, device: torch.device) -> trainer._Run:
    """A run that has taken no step."""
    place, alone = Location.of(folder), Ranks(0, 1, device)
    return trainer._start("benchmark", config, data.bundles(config), data.reader, place, alone, "", place)


def synchronised(device: torch.device) -> float:
    """The time, once the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of_steps(run: trainer._Run, batches: Sequence[Batch], steps: int) -> float:
    """Seconds of a step, on the mean of so many, with a look at the figures as often as the trainer takes one."""
    device = run.ranks.device
    began = synchronised(device)
    for number in range(steps):
        row, measured = trainer._step(run, batches[number % len(batches)])
        run.figures.add({**row, "seconds": 1.0, "wait": 0.0}, measured)
        if (number + 1) % run.config.log_every == 0:
            run.figures.look()
    run.figures.look()
    return (synchronised(device) - began) / steps


def losses_of_steps(run: trainer._Run, steps: int) -> list[float]:
    """The loss of each of the first steps, on the trainer's own batches."""
    for step in range(steps):
        row, measured = trainer._step(run, run.batches[step])
        run.figures.add({**row, "seconds": 1.0, "wait": 0.0}, measured)
    return [row["loss"] for row in run.figures.look()]


def flops_of_step(run: trainer._Run, batch: Batch) -> float:
    """Operations of a step's forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        run.gradients(batch)
    run.optimizer.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def peak(device: torch.device) -> float | None:
    """What the device could do at most in bf16, operations a second; None where that is not known."""
    return peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


class OpenClip:
    """open_clip's model, optimizer and `train_one_epoch` with the settings of `recipe`."""

    def __init__(self, config: RunConfig, device: torch.device, steps: int) -> None:
        towers = resolve_architecture(config.model)
        model = open_clip.CLIP(**{key: towers[key] for key in TOWER_KEYS if key in towers}, output_dict=True)
        self.model, self.device, self._epoch = model.to(device), device, 0
        named = list(self.model.named_parameters())
        plain = [p for name, p in named if p.ndim < 2 or "bias" in name or "ln" in name or name == "logit_scale"]
        known = set(map(id, plain))
        groups = [
            {"params": plain, "weight_decay": 0.0},
            {"params": [p for _, p in named if id(p) not in known], "weight_decay": config.weight_decay},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=(config.beta1, config.beta2), eps=config.eps)
        self.scheduler = cosine_lr(self.optimizer, LR, WARMUP, max(steps, WARMUP + 1))
        self.loss = open_clip.ClipLoss(cache_labels=True)
        self.args = SimpleNamespace(
            device=str(device),
            precision="amp_bf16" if config.precision == "bf16" else "fp32",
            distill=False,
            accum_freq=1,
            skip_scheduler=False,
            grad_clip_norm=config.grad_clip,
            horovod=False,
            rank=0,
            local_rank=0,
            world_size=1,
            log_every_n_steps=config.log_every,
            batch_size=config.global_batch,
            wandb=False,
        )

    def compile(self) -> None:
        """As open_clip's option for it does."""
        self.model = torch.compile(self.model)

    def epoch(self, batches: Iterable[tuple[Tensor, Tensor]], count: int) -> None:
        """Trains on these batches of images and texts."""
        loader = _Loader(batches, count, self.args.batch_size)
        data = {"train": SimpleNamespace(set_epoch=lambda _: None, dataloader=loader)}
        train_one_epoch(
            self.model, data, self.loss, self._epoch, self.optimizer, None, self.scheduler, None, self.args
        )
        self._epoch += 1

    def seconds_of_steps(self, batches: Sequence[tuple[Tensor, Tensor]], steps: int) -> float:
        """Seconds of a step, on the mean of so many."""
        began = synchronised(self.device)
        self.epoch((batches[number % len(batches)] for number in range(steps)), steps)
        return (synchronised(self.device) - began) / steps

    def flops_of_step(self, batch: tuple[Tensor, Tensor]) -> float:
        """Operations of a step's forward and backward pass."""
        with FlopCounterMode(display=False) as counter:
            self.epoch([batch], 1)
        return float(counter.get_total_flops())


class _Loader:
    """What the loop asks of webdataset's loader."""

    def __init__(self, batches: Iterable[tuple[Tensor, Tensor]], count: int, size: int) -> None:
        self._batches, self.num_batches, self.num_samples = batches, count, count * size

    def __iter__(self) -> Any:
        return iter(self._batches)


def single_captions(run: trainer._Run, batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """The same pairs as batches of a caption an image: normalised images, texts padded to the context length.

    An image without a caption for a slot has an empty text there.
    """
    side, context = run.model.visual.image_size[0], run.model.context_length
    image_BCSS = crop_and_normalise(batch.image_BCSS, batch.box_B4, side, run.config.image_mean, run.config.image_std)
    B, M = batch.mask_BM.shape
    text_PL = torch.zeros(B * M, context, dtype=torch.long, device=image_BCSS.device)
    text_PL[:, :2] = torch.tensor([49406, 49407])
    first = 0
    for text_TL in batch.texts:
        inside = (batch.text_P >= first) & (batch.text_P < first + len(text_TL))
        places, texts = batch.place_P[inside], text_TL[batch.text_P[inside] - first]
        text_PL[places] = 0
        text_PL[places, : text_TL.shape[1]] = texts.long()
        first += len(text_TL)
    of_slot = text_PL.view(B, M, context)
    return [(image_BCSS, of_slot[:, slot].contiguous()) for slot in range(M)]


def mean_tokens(batch: Batch) -> float:
    """Tokens of a text, with both ends and without padding."""
    lengths = torch.cat([(text_TL != 0).sum(1) for text_TL in batch.texts]).float()
    return float(lengths.mean()) if len(lengths) else math.nan
