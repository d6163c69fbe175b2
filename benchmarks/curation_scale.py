"""Rate and memory of the curate stage on stores of growing size, in one process on one core.

Captions are honest ones of `curation_world`, seven an image, in shards of 10,000 images; from a certain size on their
texts come again under other images. Each run is a process of its own, watched from outside; it also shows what a rerun
with one changed threshold costs, and one with nothing to do.

    python -m benchmarks.curation_scale --captions 100000 1000000 5000000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

from benchmarks.curation_world import PROMPTS, captions
from captioning.curate.config import CurateConfig
from captioning.curate.gadgets import GADGETS
from captioning.curate.stage import STAGE
from pipeline import schemas
from pipeline.commits import CommitLog
from pipeline.config import build
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.stage import Resolution, execute
from pipeline.workspace import Workspace

TEXTS = 70_000  # captions with words of their own
SHARD_IMAGES = 10_000
MIB = 2**20
SAMPLE_SECONDS = 0.2
RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("first", {}),
    ("again", {}),
    ("other selection", {"select": {"max_captions": 4}}),
)
COLUMNS = ("captions", "shards", "run", "seconds", "captions/s", "text gadgets µs", "image gadgets µs", "peak MiB")


def write_store(root: Path, count: int) -> None:
    """A workspace with the images and captions tables of so many captions, and their manifests."""
    texts = captions(TEXTS // len(PROMPTS))
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in texts:
        by_image.setdefault(row["key"], []).append(row)
    images = islice(cycle(by_image.values()), count // len(PROMPTS))
    workspace = Workspace(str(root))
    log, captioned = CommitLog(workspace.folder("ingest")), CommitLog(workspace.folder("caption"))
    image_parts, caption_parts, shards = [], [], {}
    for number, chunk in enumerate(_chunks(images, SHARD_IMAGES)):
        shard = f"shard-{number:05}"
        shards[shard] = f"{shard}.tar"
        pictures, said = _rows(shard, number * SHARD_IMAGES, chunk)
        table = schemas.table(schemas.IMAGES, pictures)
        image_parts.append(
            log.commit(
                f"images/{shard}.parquet",
                schemas.encode(table, schemas.IMAGES),
                rows=len(table),
                detail={"shard": shard},
            )
        )
        table = schemas.table(schemas.CAPTIONS, said)
        data = schemas.encode(table, schemas.CAPTIONS)
        caption_parts.append(
            captioned.commit(f"captions/{shard}.parquet", data, rows=len(table), detail={"shard": shard})
        )
    cells = {prompt: {"ends": "sentence"} for prompt in PROMPTS}
    _save(workspace, "ingest", log, image_parts, {"shards": shards})
    _save(workspace, "caption", captioned, caption_parts, {"cells": cells, "images": "ingest"})


def _chunks(items: Any, size: int) -> Any:
    while chunk := list(islice(items, size)):
        yield chunk


def _rows(
    shard: str, first: int, images: list[list[dict[str, Any]]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    pictures, said = [], []
    for number, rows in enumerate(images, first):
        image = {"shard": shard, "key": f"{number:09}", "image_id": digest([number])}
        pictures.append({**image, "offset": 0, "size": 1, "status": "ok", "alt_text": f"photo {number}"})
        said += [
            {
                **image,
                **{name: row[name] for name in ("perspective", "granularity", "level", "text", "finish_reason")},
                "caption_id": f"{number:09}-{row['prompt']}",
                "prompt_id": row["prompt"],
                "cell": row["prompt"],
                "status": "ok",
            }
            for row in rows
        ]
    return pictures, said


def _save(workspace: Workspace, stage: str, log: CommitLog, parts: Any, detail: dict[str, Any]) -> None:
    manifest = Manifest(
        stage, digest([part.digest for part in parts]), 1, {}, {}, log.folder.uri, tuple(parts), {}, detail
    )
    workspace.save(manifest)


def curate(root: str, settings: str) -> None:
    """One run of the stage, its counts on standard output."""
    workspace, config = Workspace(root), build(CurateConfig, json.loads(settings))
    inputs = {name: workspace.manifests(name)[0] for name in STAGE.upstream}
    started = time.monotonic()
    manifest = execute(Resolution(STAGE, config, inputs, (), digest(settings), None), workspace)
    print(json.dumps({**manifest.counts, "seconds": time.monotonic() - started}))


def watched(root: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Run it in a process of its own on one core; its counts and the most memory it was seen with, in MiB."""
    command = [sys.executable, "-m", "benchmarks.curation_scale", "--run", str(root), json.dumps(settings)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seen, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        try:
            peak = max(peak, seen.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(SAMPLE_SECONDS)
    assert process.stdout is not None
    return json.loads(process.stdout.read()), peak / MIB


def main() -> None:
    """Print the table of benchmarks/curation.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curation_scale", description=__doc__)
    parser.add_argument("--captions", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--run", nargs=2, metavar=("WORKSPACE", "SETTINGS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        curate(*options.run)
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{' ---: |' * len(COLUMNS)}", flush=True)
    for count in options.captions:
        root = Path(tempfile.mkdtemp(prefix="curation-scale-"))
        try:
            write_store(root, count)
            for name, settings in RUNS:
                counts, peak = watched(root, settings)
                total, spent = counts["captions"], counts["seconds_by_gadget"]
                of_texts = {gadget.name for gadget in GADGETS if gadget.judges == "texts"}
                texts = sum(value for gadget, value in spent.items() if gadget in of_texts)
                images = sum(spent.values()) - texts
                shards = -(-total // len(PROMPTS) // SHARD_IMAGES)
                print(
                    f"| {total:,} | {shards} | {name} | {counts['seconds']:.1f} | {total / counts['seconds']:,.0f} "
                    f"| {texts / total * 1e6:.1f} | {images / total * 1e6:.1f} | {peak:.0f} |",
                    flush=True,
                )
        finally:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
