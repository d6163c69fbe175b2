"""What is measured on a GPU, section by section. Each yields (case, figures) as it goes, so what is done is kept."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks import image_tower, losses, micro_batches, steps
from benchmarks.length_groups import padded
from benchmarks.made_up import Data, make
from pipeline.storage import Location
from training.batches import Batch
from training.ranks import Ranks
from training.slots import DEFAULT_SLOTS
from training.trainer import train

Model = str | dict[str, Any]
Found = Iterator[tuple[str, dict[str, float | str]]]


def towers(width: int, side: int, patch: int) -> dict[str, Any]:
    """Towers of a few blocks, for trials and for parity."""
    vision = {"image_size": side, "patch_size": patch, "width": width, "head_width": 16, "layers": 3}
    text = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": 2, "layers": 2}
    return {"embed_dim": width, "vision_cfg": vision, "text_cfg": text}


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    models: dict[str, Model]
    losses: tuple[int, ...]
    tower_batch: int
    rounds: int
    pairs: dict[int, int]  # images of a batch, by captions of an image
    steps: int
    micro_images: int
    micro: tuple[int, ...]
    pictures: int
    side: int
    loader_batch: int
    loader_steps: int
    parity_steps: int = 20


FULL = Sizes(
    models={"ViT-B-32": "ViT-B-32", "ViT-B-16": "ViT-B-16"},
    losses=(256, 1024, 2048),
    tower_batch=128,
    rounds=6,
    pairs={1: 512, 8: 256},
    steps=12,
    micro_images=512,
    micro=(512, 256, 128, 64),
    pictures=4096,
    side=256,
    loader_batch=512,
    loader_steps=48,
)
SMALL = Sizes(
    models={"tiny": towers(32, 32, 16)},
    losses=(16,),
    tower_batch=2,
    rounds=1,
    pairs={1: 8, 8: 4},
    steps=2,
    micro_images=8,
    micro=(8, 4),
    pictures=16,
    side=64,
    loader_batch=8,
    loader_steps=4,
    parity_steps=3,
)


@dataclass(frozen=True)
class Bench:
    """What all sections are given."""

    device: torch.device
    sizes: Sizes
    data: Data

    @property
    def precision(self) -> str:
        return "bf16" if self.device.type == "cuda" else "fp32"


@contextmanager
def bench(device: torch.device, sizes: Sizes) -> Iterator[Bench]:
    """With made-up pictures that were just written, so that they are read from memory, the system's cache.

    Not in /dev/shm, which may be small and is where loader workers put their batches.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield Bench(device, sizes, make(Path(folder), sizes.pictures, sizes.side))


def contrastive_losses(bench: Bench) -> Found:
    """M2M against the released mechanism, and at one branch against ClipLoss; forward and backward."""
    for slots, name, reference in losses.REFERENCES:
        for batch in bench.sizes.losses:
            for row in losses.measure(name, reference, batch, slots, 9, bench.device.type):
                case = f"H = M = {slots}, B = {batch:,}, {row.pop('loss')}"
                yield case, {key: row[key] for key in ("ms", "times as fast", "kept MiB")}


def tower_cost(bench: Bench) -> Found:
    """What branches cost in the image tower, H = 5, of every kind."""
    for name, model in bench.sizes.models.items():
        batch = bench.sizes.tower_batch
        made = image_tower.make_towers(model, list(image_tower.KINDS))
        side = made[image_tower.OPEN_CLIP].image_size[0]
        found = image_tower.measure(made, batch, bench.sizes.rounds, bench.device)
        least = {kind: [min(column) for column in zip(*rows, strict=True)] for kind, rows in found.items()}
        base, operations = least[image_tower.PLAIN], image_tower.flops(made[image_tower.PLAIN], side)
        for kind, (forward, both) in least.items():
            yield (
                f"{name}, {kind}",
                {
                    "forward, ms an image": 1000 * forward / batch,
                    "forward + backward, ms an image": 1000 * both / batch,
                    "over H=1": both / base[1],
                    "operations over H=1": image_tower.flops(made[kind], side) / operations,
                },
            )


def step_rate(bench: Bench, compiled: bool = False) -> Found:
    """Whole steps on batches that are on the GPU; pairs are images with a caption."""
    for name, (captions, images) in product(bench.sizes.models, bench.sizes.pairs.items()):
        theirs = yield from _open_clip(bench, name, captions, images, compiled)
        yield from _ours(bench, name, captions, images, compiled, theirs)


def _open_clip(bench: Bench, name: str, captions: int, images: int, compiled: bool) -> Any:
    """open_clip's own step, which takes the captions of an image one at a time. Returns pairs a second."""
    config = steps.recipe(bench.sizes.models[name], captions, images, bench.precision, device=bench.device.type)
    with _run(bench, config) as (run, batch):
        singles = steps.single_captions(run, batch)
    loop = steps.OpenClip(config, bench.device, 1000)
    operations = loop.flops_of_step(singles[0])
    if compiled:
        loop.compile()
    loop.seconds_of_steps(singles, 3)
    seconds = loop.seconds_of_steps(singles, bench.sizes.steps)
    yield (
        f"{name}, {captions} × {images} pairs, open_clip one caption at a time",
        _rates(bench, images, images, seconds, operations, None),
    )
    return images / seconds


def _ours(bench: Bench, name: str, captions: int, images: int, compiled: bool, theirs: float) -> Found:
    settings = {"device": bench.device.type, "compile": compiled}
    config = steps.recipe(bench.sizes.models[name], captions, images, bench.precision, **settings)
    with _run(bench, config) as (run, batch):
        for how, one in {"padded to 77": padded(batch), "in length groups": batch}.items():
            operations = None if compiled else steps.flops_of_step(run, one)
            steps.seconds_of_steps(run, [one], 3)
            seconds = steps.seconds_of_steps(run, [one], bench.sizes.steps)
            pairs = int(batch.mask_BM.sum())
            figures = _rates(bench, images, pairs, seconds, operations, theirs)
            yield f"{name}, {captions} × {images} pairs, ours {how}", figures
        yield f"{name}, {captions} × {images} pairs, texts", {"tokens of a text": steps.mean_tokens(batch)}


@contextmanager
def _run(bench: Bench, config: Any) -> Iterator[tuple[Any, Batch]]:
    """A run that has taken no step, and its first batch on the device."""
    with tempfile.TemporaryDirectory() as folder:
        run = steps.started(config, bench.data, folder, bench.device)
        yield run, run.batches[0].to(bench.device)


def _rates(
    bench: Bench, images: int, pairs: int, seconds: float, operations: float | None, theirs: float | None
) -> dict[str, float | str]:
    found: dict[str, float | str] = {"ms a step": 1000 * seconds, "images/s": images / seconds}
    found["pairs/s"] = pairs / seconds
    if operations is not None:
        found["TFLOP/s"] = operations / seconds / 1e12
        if most := steps.peak(bench.device):
            found["MFU, %"] = 100 * operations / seconds / most
    if theirs:
        found["pairs over open_clip's"] = pairs / seconds / theirs
    return found


def memory(bench: Bench) -> Found:
    """Micro-batches: activations of so many images at once, three captions each."""
    name, model = next(iter(bench.sizes.models.items()))
    for size in bench.sizes.micro:
        found = micro_batches.measure(model, bench.sizes.micro_images, size, 3, bench.device)
        figures: dict[str, float | str] = {"ms": 1000 * found["seconds"]}
        if bench.device.type == "cuda":  # on a CPU a process each is needed: python -m benchmarks.micro_batches
            figures["peak MiB beyond weights and gradients"] = found["mib"]
        yield f"{name}, {bench.sizes.micro_images} images, {size} at once", figures


def data_wait(bench: Bench) -> Found:
    """The trainer itself with its loader: pictures in memory, decoded by workers, eight captions each."""
    name, model = next(iter(bench.sizes.models.items()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for workers in sorted({1, max(1, cores // 2), max(1, cores - 1)}):
        size, count = bench.sizes.loader_batch, bench.sizes.loader_steps
        epochs = -(-count * size // bench.sizes.pictures)
        settings = {"device": bench.device.type, "epochs": epochs, "workers": workers, "checkpoint_every": 10**6}
        config = steps.recipe(model, len(DEFAULT_SLOTS), size, bench.precision, **settings)
        with tempfile.TemporaryDirectory() as folder:
            place, ranks = Location.of(folder), Ranks(0, 1, bench.device)
            trained = train("loader", config, bench.data.bundles(config), bench.data.reader, place, ranks)
        rows = [json.loads(line) for line in trained.metrics.splitlines()]
        rows = rows[len(rows) // 4 :]  # workers have begun, kernels are chosen
        seconds = sum(row["seconds"] for row in rows)
        yield (
            f"{name}, {size} images a step, {workers} of {cores} cores as workers",
            {
                "images/s": size * len(rows) / seconds,
                "data wait, %": 100 * sum(row["wait"] for row in rows) / seconds,
                "kB a picture": bench.data.kilobytes,
            },
        )


def parity(bench: Bench) -> Found:
    """The same steps in float32 on this device and on the CPU; TF32 is off."""
    of_device: dict[str, list[float]] = {}
    for device in (bench.device, torch.device("cpu")):
        settings = {"device": device.type, "epochs": bench.sizes.parity_steps, "warmup_steps": 1, "lr": 1e-3}
        images = min(64, bench.sizes.pictures)
        config = steps.recipe(towers(64, 64, 16), 5, images, "fp32", **settings)
        with tempfile.TemporaryDirectory() as folder:
            run = steps.started(config, bench.data, folder, device)
            with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # products have it off by themselves
                of_device[str(device)] = steps.losses_of_steps(run, bench.sizes.parity_steps)
    one, other = of_device[str(bench.device)], of_device["cpu"]
    apart = [abs(a - b) / abs(b) for a, b in zip(one, other, strict=True)]
    yield (
        f"{len(one)} steps, eager, float32",
        {
            "first loss": one[0],
            "last loss": one[-1],
            "largest relative difference from the CPU": max(apart),
            "of the first step": apart[0],
        },
    )


SECTIONS: dict[str, Callable[[Bench], Found]] = {
    "losses": contrastive_losses,
    "image tower": tower_cost,
    "micro-batches": memory,
    "loader against the GPU": data_wait,
    "parity": parity,
    "step rate": step_rate,
    "step rate, compiled": partial(step_rate, compiled=True),  # last, as compiling takes what time there is
}
