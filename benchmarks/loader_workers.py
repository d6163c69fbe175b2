"""Ways to make batches ahead: loader processes by forkserver or spawn, and threads of the training process.

    python -m benchmarks.loader_workers --folder FOLDER

Each way runs in a process of its own, as a training starts, on demo scenes (96 px canvases) and on the same scenes
as photos (640 x 480 px with noise, 256 px canvases). Start-up is the time to the first batch, for forkserver also that
of a second run of the same training; the rate is that of the batches after it, alone and while the main thread is
busy with Python code, as a loop that launches work on a GPU is; memory is the proportional set size of all processes
over what the main one had before.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.true_captions import captions
from pipeline import identity, schemas
from pipeline.config import build
from pipeline.demo_world.write import write_world
from pipeline.shards import ShardReader
from pipeline.storage import Location
from training.batches import Batch, BatchMaker
from training.bundles import in_memory
from training.config import RunConfig
from training.index.piece import piece_of
from training.loader import loader

SCENES, BATCH, BATCHES = 640, 64, 40
WAYS = ("forkserver", "spawn", "threads")
KINDS = {"scenes": 96, "photos": 256}  # canvases


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--one", nargs=3, metavar=("KIND", "WAY", "WORKERS"), help="measure one way, in this process")
    options = parser.parse_args(arguments)
    if options.one:
        kind, way, workers = options.one
        print(json.dumps(measure(options.folder, kind, way, int(workers))))
        return
    write_world(options.folder / "scenes", SCENES, 2, seed=0)
    print("| pictures | way | workers | start, s | images/s | beside a busy loop | memory, MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for kind in KINDS:
        pack(options.folder, kind)
        for way in WAYS:
            for workers in (1, 4):
                command = [sys.executable, "-m", "benchmarks.loader_workers", "--folder", str(options.folder)]
                command += ["--one", kind, way, str(workers)]
                found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout.splitlines()[-1])
                start = " and ".join(f"{seconds:.2f}" for seconds in found["start"])
                print(
                    f"| {kind} | {way} | {workers} | {start} | {found['rate']:.0f} | {found['busy']:.0f} "
                    f"| {found['memory'] / 1e6:.0f} |",
                    flush=True,
                )


def pack(folder: Path, kind: str) -> None:
    """The scenes in a tar, and a caption of every slot for each."""
    import pyarrow.parquet as pq

    config, rows = build(RunConfig, {}), []
    with tarfile.open(folder / f"{kind}.tar", "w") as tar:
        for number, row in enumerate(pq.read_table(folder / "scenes" / "train_truth.parquet").to_pylist()):
            data = (folder / "scenes" / "train" / row["file"]).read_bytes()
            data = as_photo(data, number) if kind == "photos" else data
            info = tarfile.TarInfo(row["file"])
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            place = {"shard": kind, "key": row["file"], "image_id": identity.image_id(data), "size": len(data)}
            start = tar.offset - (len(data) + 511) // 512 * 512
            rows.append({**place, "offset": start, "captions": captions(row, config, number)})
    (folder / f"{kind}.parquet").write_bytes(schemas.encode(schemas.table(schemas.BUNDLES, rows), schemas.BUNDLES))


def as_photo(data: bytes, seed: int) -> bytes:
    scene = Image.open(io.BytesIO(data)).convert("RGB").resize((640, 480), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).normal(0, 12, (480, 640, 3))
    picture = Image.fromarray(np.clip(np.asarray(scene) + noise, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def measure(folder: Path, kind: str, way: str, workers: int) -> dict[str, Any]:
    config = build(RunConfig, {"global_batch": BATCH, "epochs": 10})
    table = schemas.read(Location.of(folder / f"{kind}.parquet"), schemas.BUNDLES)
    reader = ShardReader({kind: str(folder / f"{kind}.tar")})
    batches = BatchMaker(
        config, in_memory([piece_of(table, config.slots)]), reader, canvas=KINDS[kind], context_length=77
    )
    before, start = memory(), []
    for _ in range(2 if way == "forkserver" else 1):
        made: Iterator[Batch] | None = None  # the first ones' workers end
        began = time.monotonic()
        made = ahead(batches, way, workers)
        next(made)
        start.append(time.monotonic() - began)
    assert made is not None
    rate = images_per_second(made, busy=False)
    found = {"start": start, "rate": rate, "busy": images_per_second(made, busy=True), "memory": memory() - before}
    sys.stdout.flush()
    return found


def ahead(batches: BatchMaker, way: str, workers: int) -> Iterator[Batch]:
    steps = range(batches.order.steps)
    if way == "forkserver":
        return loader(batches, 0, workers, pin_memory=False)
    if way == "spawn":
        return iter(
            DataLoader(batches, batch_size=None, sampler=steps, num_workers=workers, multiprocessing_context=way)
        )
    return by_threads(batches, steps, workers)


def by_threads(batches: BatchMaker, steps: range, workers: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(workers) as pool:
        left = iter(steps)
        waiting = [pool.submit(batches.__getitem__, step) for step in islice(left, 2 * workers)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(batches.__getitem__, step) for step in islice(left, 1)]


def images_per_second(made: Iterator[Batch], busy: bool) -> float:
    began, wanted = time.monotonic(), BATCHES
    for _ in range(wanted):
        next(made)
        until = time.monotonic() + (0.1 if busy else 0)
        while time.monotonic() < until:  # Python code, as that of a training step
            sum(range(500))
    return BATCH * wanted / (time.monotonic() - began)


def memory() -> int:
    """Proportional set size of this process and all below it, in bytes."""
    ours, found = {os.getpid()}, 0
    for _ in range(3):  # children of children
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent in ours:
                ours.add(int(entry))
    for process in ours:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        found += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return found


if __name__ == "__main__":
    main()
