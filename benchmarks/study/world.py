"""The scenes of the study, in splits that share none.

start     many scenes with the alt texts of the web alone: what the myopic CLIP is trained on
train     the scenes that all rows are trained on
develop   the benchmark that recipes are chosen by
known     test: scenes like those of training
new       test: scenes with combinations of attributes that no other split has

`start` and `train` are WebDataset tars (picture and alt text), with true captions beside them: in `train` of the
perspectives that models are asked for, in `start` one for each scene. The others are benchmark folders.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.combinations import has_held_out
from benchmarks.study.shards import JPEG_QUALITY, SHARD, Caption, Sample, write_shard
from pipeline.demo_world.alt_text import alt_text
from pipeline.demo_world.benchmark import PERSPECTIVES, write_benchmark
from pipeline.demo_world.facts import Truth
from pipeline.demo_world.language import answer
from pipeline.demo_world.regions import label_png
from pipeline.demo_world.render import render
from pipeline.demo_world.scene import sample, truth
from pipeline.progress import Progress

TRAINING = {"start": 24_000, "train": 5_000}
CAPTIONS = {"start": ("phrase",), "train": PERSPECTIVES}
BENCHMARKS = {"develop": 500, "known": 500, "new": 500}
MASKS = "masks"
_FIRST_SEED = 1 << 41  # beyond the demo's, which end below 1 << 41
_SEEDS_OF_A_SHARD = 1 << 16
_SHARDS_OF_A_SPLIT = 1 << 10
_SUMMARIES = ("sentence", "phrase")  # granularities of one perspective
SCENES = (*TRAINING, *BENCHMARKS)


def write_world(out: Path, scale: float = 1.0, workers: int = 1, splits: Collection[str] = SCENES) -> None:
    """Write what is missing of some splits; `scale` is the share of their scenes, for trying things."""
    shards = [
        (out, split, number, min(SHARD, size - number * SHARD))
        for split, size in _scaled(TRAINING, scale).items()
        if split in splits
        for number in range((size + SHARD - 1) // SHARD)
    ]
    progress = Progress("study world", sum(shard[3] for shard in shards), "scenes")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for written in pool.map(_write_shard, *zip(*shards, strict=True)):
            progress.update(written)
    progress.close()
    for split, size in _scaled(BENCHMARKS, scale).items():
        there = all((out / split / part).exists() for part in ("benchmark.yaml", "choices.parquet", MASKS))
        if split in splits and not there:
            _write_benchmark(out / split, split, size)


def _scaled(sizes: dict[str, int], scale: float) -> dict[str, int]:
    return {split: max(int(size * scale), 20) for split, size in sizes.items()}


def scenes(split: str, shard: int) -> Iterator[tuple[Any, Truth]]:
    """Endless scenes of a shard of a split: always the same ones."""
    first = _FIRST_SEED + (SCENES.index(split) * _SHARDS_OF_A_SPLIT + shard) * _SEEDS_OF_A_SHARD
    for seed in count(first):
        scene = sample(seed)
        t = truth(scene)
        if has_held_out(t) == (split == "new"):
            yield scene, t


def _write_shard(out: Path, split: str, number: int, size: int) -> int:
    """One shard, unless it is there. Returns how many scenes it holds."""
    path = out / split / f"{number:05d}.tar"
    if not path.exists():
        write_shard(path, _samples(split, number, size))
    return size


def _samples(split: str, number: int, size: int) -> Iterator[Sample]:
    for index, (scene, t) in enumerate(islice(scenes(split, number), size)):
        key = f"{number * SHARD + index:07d}"
        rng = np.random.default_rng((t["seed"], 104729))
        said = alt_text(t, rng)
        yield Sample(key, render(scene), said, list(true_captions(key, t, CAPTIONS[split], rng)))


def true_captions(key: str, t: Truth, prompts: Sequence[str], rng: np.random.Generator) -> Iterator[Caption]:
    """What a model that makes no mistakes would answer."""
    for prompt in prompts:
        granularity = prompt if prompt in _SUMMARIES else "sentence"
        perspective = "summary" if prompt in _SUMMARIES else prompt
        text = answer(t, prompt, rng)
        yield {"key": key, "perspective": perspective, "granularity": granularity, "text": text}


def _write_benchmark(folder: Path, split: str, size: int) -> None:
    images, masks = folder / "images", folder / MASKS
    for made in (images, masks):
        made.mkdir(parents=True, exist_ok=True)
    files, truths = [], []
    for index, (scene, t) in enumerate(islice(scenes(split, 0), size)):
        files.append(f"{index:05d}.jpg")
        truths.append(t)
        (masks / f"{index:05d}.png").write_bytes(label_png(scene))
        render(scene).save(images / files[-1], quality=JPEG_QUALITY)
    (folder / "truth.json").write_text(json.dumps(truths))
    write_benchmark(folder, files, truths, name=split, split=split)
