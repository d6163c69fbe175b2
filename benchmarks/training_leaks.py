"""Whether a long training leaks: 20,000 steps of tiny towers with three resumes, all in one process.

    python -m benchmarks.training_leaks --folder FOLDER

A run is broken off after every quarter and goes on from its checkpoint, as `train` would, with loader workers and an
index on disk. At each checkpoint: memory of the process that no other shares, open files, threads, and processes below
it.
"""

import argparse
import gc
import io
import os
import shutil
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.training_index import below, memory
from pipeline import identity, schemas
from pipeline.commits import CommitLog
from pipeline.config import build
from pipeline.manifest import Manifest
from pipeline.shard_cache import ShardCache
from pipeline.shards import ShardReader
from pipeline.storage import Location
from training.bundles import read_bundles
from training.config import RunConfig
from training.ranks import Ranks
from training.trainer import train

IMAGES, BATCH, LOOKS = 64, 4, 20
SLOTS = ("alt_text", "detail")
TOWERS = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}


class BrokenOffError(Exception):
    """After a quarter."""


def data(folder: Path) -> tuple[Manifest, ShardReader]:
    """Bundles of small pictures in a tar, which lies on a store that this process has in memory."""
    rows, buffer, rng = [], io.BytesIO(), np.random.default_rng(0)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(IMAGES):
            picture = io.BytesIO()
            Image.fromarray(rng.integers(0, 255, (18, 18, 3), dtype=np.uint8)).save(picture, "PNG")
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = picture.tell()
            tar.addfile(info, io.BytesIO(picture.getvalue()))
            start = tar.offset - (info.size + 511) // 512 * 512
            place = {"shard": "s", "key": info.name, "offset": start, "size": info.size}
            blank = {"caption_id": None, "source": "caption", "granularity": None, "level": None, "weight": 1.0}
            texts = [{**blank, "perspective": slot, "text": f"{slot} {number}", "n_tokens": None} for slot in SLOTS]
            rows.append({**place, "image_id": identity.image_id(picture.getvalue()), "captions": texts})
    (folder / "s.tar").write_bytes(buffer.getvalue())
    encoded = schemas.encode(schemas.table(schemas.BUNDLES, rows), schemas.BUNDLES)
    part = CommitLog(Location.of(folder / "curate")).commit("bundles/s.parquet", encoded, rows=IMAGES)
    curate = Manifest("curate", "f", 1, {}, {}, str(folder / "curate"), (part,))
    return curate, ShardReader({"s": str(folder / "s.tar")}, ShardCache(folder / "cache", 10**8))


def state() -> dict[str, Any]:
    """Of this process."""
    gc.collect()
    return {
        "own memory, MB": memory()["uss"],
        "open files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "processes": len(list(below(os.getpid()))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    torch.set_num_threads(1)
    epochs, quarter = options.steps * BATCH // IMAGES, options.steps // 4
    settings = {
        "model": TOWERS, "slots": SLOTS, "global_batch": BATCH, "epochs": epochs, "precision": "fp32", "device": "cpu",
        "workers": options.workers, "log_every": 100, "checkpoint_every": options.steps // LOOKS, "shuffle": "blocks",
    }  # fmt: skip
    config, (curate, reader) = build(RunConfig, settings), data(options.folder)
    began, goal = time.monotonic(), quarter
    print(f"| step | {' | '.join(state())} |\n| ---: |{' ---: |' * len(state())}")

    def look(_: Any, step: int) -> None:
        print(f"| {step} | {' | '.join(map(str, state().values()))} |", flush=True)
        if step == goal:
            raise BrokenOffError

    for number in range(4):
        goal = quarter * (number + 1)
        try:
            bundles = read_bundles(curate, config.slots, Location.of(options.folder / "index"))
            run = Location.of(options.folder / "run")
            train("leaks", config, bundles, reader, run, Ranks(0, 1, torch.device("cpu")), look)
        except BrokenOffError:
            print(f"| broken off | {' | '.join(map(str, state().values()))} |", flush=True)
    print(f"| end | {' | '.join(map(str, state().values()))} |\n\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
