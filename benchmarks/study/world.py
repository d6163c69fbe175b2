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

import io
import json
import os
import tarfile
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.combinations import has_held_out
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
SHARD = 1000
_FIRST_SEED = 1 << 41  # beyond the demo's, which end below 1 << 41
_SEEDS_OF_A_SHARD = 1 << 16
_SHARDS_OF_A_SPLIT = 1 << 10
_SUMMARIES = ("sentence", "phrase")  # granularities of one perspective
SCENES = (*TRAINING, *BENCHMARKS)
JPEG_QUALITY = 92


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
    """One tar, and true captions beside it. Returns how many scenes it holds."""
    folder = out / split
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:05d}.tar"
    if path.exists():
        return size
    captions: list[dict[str, Any]] = []
    unfinished = path.with_suffix(".part")
    with tarfile.open(unfinished, "w") as tar:
        for index, (scene, t) in enumerate(islice(scenes(split, number), size)):
            key = f"{number * SHARD + index:07d}"
            picture = io.BytesIO()
            render(scene).save(picture, "JPEG", quality=JPEG_QUALITY)
            rng = np.random.default_rng((t["seed"], 104729))
            _add(tar, f"{key}.jpg", picture.getvalue())
            _add(tar, f"{key}.txt", alt_text(t, rng).encode())
            captions += true_captions(key, t, CAPTIONS[split], rng)
    _write_table(captions, folder / f"{number:05d}.parquet")
    os.replace(unfinished, path)
    return size


def true_captions(key: str, t: Truth, prompts: Sequence[str], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """What a model that makes no mistakes would answer."""
    for prompt in prompts:
        granularity = prompt if prompt in _SUMMARIES else "sentence"
        perspective = "summary" if prompt in _SUMMARIES else prompt
        text = answer(t, prompt, rng)
        yield {"key": key, "perspective": perspective, "granularity": granularity, "text": text}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


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


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")
