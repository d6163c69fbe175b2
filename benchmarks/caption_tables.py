"""Taking a table of captions over into the store: rate and memory on tables of growing size.

Images are rows of images parts alone (no pictures are needed to match ids), 10,000 a shard, seven captions each, in a
Parquet table in random order. Each size is a process of its own; its peak memory is the kernel's figure.

    python -m benchmarks.caption_tables --captions 100000 1000000 5000000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from captioning.config import TableConfig
from captioning.importing import tables
from pipeline import demo_world, schemas
from pipeline.commits import CommitLog
from pipeline.config import build
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.storage import Location

EACH = 7
SHARD_IMAGES = 10_000
PIECE = 100_000


def write_ingest(folder: Path, images: int) -> Manifest:
    """Images parts and their manifest."""
    log, parts, tars = CommitLog(Location.of(folder / "ingest")), [], {}
    for start in range(0, images, SHARD_IMAGES):
        shard = f"shard-{start // SHARD_IMAGES:05}"
        numbers = range(start, min(start + SHARD_IMAGES, images))
        rows = [
            {"shard": shard, "key": f"{n:09}", "image_id": digest(n), "offset": 0, "size": 1, "status": "ok"}
            for n in numbers
        ]
        data = schemas.encode(schemas.table(schemas.IMAGES, rows), schemas.IMAGES)
        parts.append(log.commit(f"images/{shard}.parquet", data, rows=len(rows), detail={"shard": shard}))
        tars[shard] = "absent.tar"
    return Manifest(
        stage="ingest", fingerprint="f", version=1, config={}, inputs={}, store=log.folder.uri, parts=tuple(parts),
        detail={"shards": tars}, created_at="",
    )  # fmt: skip


def write_table(file: Path, images: int) -> None:
    """Seven captions of every image, rows in random order."""
    texts = [demo_world.canonical(demo_world.truth(demo_world.sample(seed)), "detail") for seed in range(500)]
    order = np.random.default_rng(0).permutation(images * EACH)
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("kind", pa.string())])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, len(order), PIECE):
            numbers = order[start : start + PIECE].tolist()
            said = islice(cycle(texts), start % 500, None)
            columns = [
                [digest(number // EACH) for number in numbers],
                [f"{text} {number}" for number, text in zip(numbers, said, strict=False)],
                [f"kind {number % EACH}" for number in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema))


def one(captions: int) -> None:
    """Prepare, take over twice, and print the figures as JSON."""
    images = captions // EACH
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ingest = write_ingest(folder, images)
        write_table(folder / "mine.parquet", images)
        columns = {"image": "id", "text": "text", "perspective": "kind"}
        config = build(TableConfig, {"name": "mine", "path": str(folder / "mine.parquet"), "columns": columns})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        brought = tables.bring_in([config], ingest, Location.of(folder / "caption"))
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        again = time.perf_counter()
        assert tables.bring_in([config], ingest, Location.of(folder / "caption")).new == 0
        assert brought.new == images * EACH
        found = {"captions": brought.new, "seconds": seconds, "before_mib": before / 1024, "peak_mib": peak / 1024}
        print(json.dumps({**found, "again_seconds": time.perf_counter() - again}))


def main() -> None:
    """A process for each size, and a table of their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--one", action="store_true", help="this process takes the first size over itself")
    options = parser.parse_args()
    if options.one:
        one(options.captions[0])
        return
    print(
        "| captions | seconds | captions/s | peak memory, MiB | nothing new, s |\n| ---: | ---: | ---: | ---: | ---: |"
    )
    for captions in options.captions:
        command = [sys.executable, "-m", "benchmarks.caption_tables", "--one", "--captions", str(captions)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        f = json.loads(output.splitlines()[-1])
        print(
            f"| {f['captions']:,} | {f['seconds']:.1f} | {f['captions'] / f['seconds']:,.0f} | {f['peak_mib']:,.0f} "
            f"({f['before_mib']:,.0f} before) | {f['again_seconds']:.2f} |"
        )


if __name__ == "__main__":
    main()
