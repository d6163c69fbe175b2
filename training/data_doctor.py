"""What the data of a run costs and whether training waits for it: `holism doctor data`.

Everything is measured alone, in this process, on the run's own batches: reading, decoding, tokens (captions drawn and
grouped) and the rest of making a batch; then the loader with its workers and nobody who trains; then training on one
batch that is in memory, which is the step time that the best of loaders would give.
"""

import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.shards import ShardReader
from pipeline.summary import counted
from training.batches import Batch, BatchMaker, Share
from training.bundles import Bundles
from training.checkpoint import new_model
from training.config import RunConfig
from training.ema import Ema
from training.gradients import Gradients
from training.index.piece import Piece
from training.loader import loader
from training.model import HolisticCLIP
from training.optim import freeze, make_optimizer
from training.ranks import Ranks, joined
from training.threads import POLICY
from training.token_head import add_token_head

PARTS = ("read", "decode", "tokens", "collate")
AT_ONCE = 256  # images
IMAGES, SECONDS = 1000, 10.0  # of each measurement, whichever comes first
STEPS = 20
LEVEL = 0.95  # of the step's time, below which making a batch is no matter


@dataclass(frozen=True)
class Diagnosis:
    """Seconds of 1,000 images by part, and of a step of one rank: of the loader alone, and of training alone."""

    images: int  # of a rank's step
    ranks: int
    workers: int
    cores: int
    cpu: Mapping[str, float]
    wall: Mapping[str, float]
    loader: float
    training: float
    on_cpu: bool = False
    threads: int = 1  # of torch

    @property
    def limit(self) -> str:
        """The part that limits, or training."""
        if self.loader <= LEVEL * self.training:
            return "training"
        return max(PARTS, key=self.wall.__getitem__)

    @property
    def advice(self) -> str:
        """What to change, in one sentence."""
        limit, free = self.limit, self.cores // self.ranks - 1
        if limit == "training":
            return "training itself limits: no other loader makes a step shorter, so leave the data as it is"
        needed = int(np.ceil(sum(self.wall.values()) / 1000 * self.images / self.training)) if self.training else 1
        if limit == "read" and self.cpu["read"] < self.wall["read"] / 2:
            return (
                "reading limits, and most of it is waiting: put the shards, or train.shard_cache, on a faster disk, "
                f"or set train.workers to {max(needed, self.workers + 1)}, as workers that wait take no core"
            )
        if self.workers < min(needed, max(free, 1)):
            return f"{limit} limits: set train.workers to {min(needed, max(free, 1))}"
        if limit == "decode":
            return (
                "decode limits, and there are no cores for more workers: ingest smaller pictures (ingest.resize), or "
                "use a machine with more cores for each GPU"
            )
        return f"{limit} limits, and there are no cores for more workers: use a machine with more cores for each GPU"

    def text(self) -> str:
        """The whole report."""
        rows = [f"{'':10}{'CPU s':>10}{'s':>10}  of 1,000 images, one process"]
        rows += [f"{part:10}{self.cpu[part]:10.3f}{self.wall[part]:10.3f}" for part in PARTS]
        rows.append(f"{'all':10}{sum(self.cpu.values()):10.3f}{sum(self.wall.values()):10.3f}")
        images, workers = self.images * self.ranks, counted(self.workers, "worker")
        if os.getloadavg()[0] > self.cores:
            rows.append(f"other programs use this machine as well (load {os.getloadavg()[0]:.1f}): figures are rough")
        policy = os.environ.get(POLICY, "not set")
        if self.on_cpu and self.threads > 1 and policy.lower() != "passive":
            rows.append(
                f"{POLICY} is {policy}, so torch's {self.threads} threads spin while they wait, which is many times "
                "slower beside other work: set it to passive, or train.threads to 1"
            )
        rows += [
            f"a step of {images} images on {counted(self.ranks, 'rank')}, {counted(self.cores, 'core')}:",
            f"  loader alone, {workers}: {self.loader:.3f} s ({images / self.loader:.0f} images/s)",
            f"  training alone, batches from memory: {self.training:.3f} s ({images / self.training:.0f} images/s)",
            "  (the latter is the best that any loader could reach)",
            self.advice,
        ]
        return "\n".join(rows)


def diagnose(config: RunConfig, bundles: Bundles, reader: ShardReader, ranks: int = 1) -> Diagnosis:
    """Measures the share of one of so many ranks. It takes some 30 s."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with joined(config.device) as here:
        device = here.device
    torch.set_num_threads(config.threads or max(1, cores // ranks))
    model = new_model(config)
    add_token_head(model, config, bundles)
    canvas = config.canvas or round(model.visual.image_size[0] * 8 / 7)
    batches = TimedBatches(
        config, bundles, reader, canvas=canvas, context_length=model.context_length, rank=0, ranks=ranks
    )
    cpu, wall = _parts(batches)
    share = batches.share_sizes[0]
    return Diagnosis(
        images=share,
        ranks=ranks,
        workers=config.workers,
        cores=cores,
        cpu=cpu,
        wall=wall,
        loader=_loader_alone(config, batches),
        training=_training_alone(config, model, batches[0], device),
        on_cpu=device.type == "cpu",
        threads=torch.get_num_threads(),
    )


class TimedBatches(BatchMaker):
    """Knows what its parts took, in seconds of the CPU and of the clock."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.forget()
        super().__init__(*args, **options)

    def forget(self) -> None:
        """From now on."""
        self.cpu, self.wall = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Counts what is done within to a part."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[part] += time.perf_counter() - wall
            self.cpu[part] += time.process_time() - cpu

    def _read(self, piece: Piece, row: int, span: np.ndarray | None) -> bytes:
        with self.timed("read"):
            return super()._read(piece, row, span)

    def _decode(self, data: bytes) -> tuple[Tensor, int, int]:
        with self.timed("decode"):
            return super()._decode(data)

    def _draw(self, piece: Piece, row: int, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
        with self.timed("tokens"):
            return super()._draw(piece, row, rng)

    def _negatives(self, *of_image: Any) -> list[tuple[int, np.ndarray]]:
        with self.timed("tokens"):
            return super()._negatives(*of_image)

    def _group(self, captions_of: Mapping[bytes, list[int]]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        with self.timed("tokens"):
            return super()._group(captions_of)


def _parts(batches: TimedBatches) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of 1,000 images by part, of the CPU and of the clock."""
    images, began = 0, time.perf_counter()
    for number, share in enumerate(_few(batches)):
        with batches.timed("collate"):
            batches.make(share)
        if not number:  # the first one imports, and opens files
            batches.forget()
            continue
        images += len(share.samples)
        if images >= IMAGES or time.perf_counter() - began > SECONDS:
            break
    for found in (batches.cpu, batches.wall):
        found["collate"] -= sum(found[part] for part in PARTS[:-1])
    by_thousand = 1000 / images
    return (
        {part: batches.cpu[part] * by_thousand for part in PARTS},
        {part: batches.wall[part] * by_thousand for part in PARTS},
    )


def _few(batches: BatchMaker) -> Iterator[Share]:
    """The samples of the steps, few at a time, again and again."""
    for step in count():
        share = batches.share(step % batches.order.steps)
        for start in range(0, len(share.samples), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            spans = None if share.spans is None else share.spans[part]
            yield replace(share, samples=share.samples[part], spans=spans)


def _loader_alone(config: RunConfig, batches: BatchMaker) -> float:
    """Seconds of a step, while nobody trains and after the workers made their first batches."""
    ahead = 1 + 2 * config.workers  # that are made before anybody asks
    times = []
    with closing(loader(batches, 0, config.workers, pin_memory=False)) as made:
        for _ in made:
            times.append(time.perf_counter())
            if len(times) > ahead + 2 and times[-1] - times[ahead] > SECONDS:
                break
    times = times[ahead:] if len(times) > ahead + 2 else times
    if len(times) < 2:  # a run of one step
        return sum(batches.wall.values()) / 1000 * batches.share_sizes[0] if isinstance(batches, TimedBatches) else 0.0
    return (times[-1] - times[0]) / (len(times) - 1)


def _training_alone(config: RunConfig, model: HolisticCLIP, batch: Batch, device: torch.device) -> float:
    """Median seconds of a step on one batch that is there."""
    freeze(model, config)
    model.to(device).train()
    teacher = Ema(model, config.ema).model if config.ema and config.has_teacher else None
    if config.activation_checkpointing:
        model.make_activations_again()
    if config.compile:
        model.compile_towers()
    optimizer = make_optimizer(model, config)
    alone = config.model_copy(update={"global_batch": len(batch.image_BCSS)})
    gradients = Gradients(model, alone, Ranks(0, 1, device), teacher)
    times: list[float] = []
    while len(times) < 2 + STEPS and (len(times) < 3 or sum(times) < SECONDS):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        gradients(batch.to(device))
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])
