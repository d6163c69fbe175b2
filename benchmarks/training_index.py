"""The training index at scale: build rate, size, memory of a rank and its workers, and the time to the first batch.

`build` makes bundles of generated captions, seven an image and parts of 10,000 images, and times the index of them;
`index` times it again.
`repeat` writes its pieces again and again under other ids, so that an index of 12 million images need not be
tokenised. `start` opens an index in a process of its own and makes batches of stand-in pictures with loader workers.

    python -m benchmarks.training_index --folder FOLDER build --images 1000000
    python -m benchmarks.training_index --folder FOLDER repeat --times 12
    python -m benchmarks.training_index --folder FOLDER start --images 1000 1000000 12000000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import schemas
from pipeline.clip_tokens import clip_encoder
from pipeline.commits import CommitLog, Part
from pipeline.config import build as build_config
from pipeline.manifest import Manifest
from pipeline.shards import ShardReader
from pipeline.storage import Location
from training.batches import BatchMaker
from training.bundles import read_bundles
from training.config import RunConfig
from training.index.build import piece_name
from training.index.piece import open_piece, to_bytes
from training.loader import loader

PART = 10_000  # images
WORDS = 20_000
# Words of each slot's captions, on the mean; alt text beside six of the default slots.
LENGTHS = {"alt_text": 10, "detail": 50, "sentence": 18, "phrase": 7, "nouns": 6, "main_object": 4, "background": 9}
ODD = ("café", "“quoted”", "naïve", "R&amp;B", "½", "👩‍👩‍👧")  # in one caption of twenty: texts that are repaired
BATCH, BATCHES = 1024, 20


def config(**changes: Any) -> RunConfig:
    """The default recipe with the slots that have captions here."""
    return build_config(RunConfig, {"slots": list(LENGTHS), "global_batch": BATCH, "canvas": 32, **changes})


def words() -> np.ndarray:
    """Whole words of CLIP's vocabulary; its order is about that of frequency."""
    import open_clip

    found = [piece.removesuffix("</w>") for piece in open_clip.SimpleTokenizer().encoder if piece.endswith("</w>")]
    return np.array([word for word in found if word.isascii() and word.isalpha() and len(word) > 1][:WORDS])


def table(number: int, vocabulary: np.ndarray) -> pa.Table:
    """A part of the bundles, words drawn by Zipf's law."""
    rng = np.random.default_rng(number)
    count = PART * len(LENGTHS)
    lengths = np.maximum(rng.poisson(np.tile(list(LENGTHS.values()), PART)), 1)
    drawn = vocabulary[np.minimum(rng.zipf(1.2, lengths.sum()) - 1, len(vocabulary) - 1)]
    texts = [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]
    for place in rng.choice(count, count // 20, replace=False):
        texts[place] = f"{texts[place]} {ODD[place % len(ODD)]}"
    slots = {slot.name: (slot.perspective, slot.granularity) for slot in config().slots}
    kinds = [slots[name] for name in LENGTHS]
    columns = {
        "perspective": pa.array([kind[0] for kind in kinds] * PART, pa.string()),
        "granularity": pa.array([kind[1] for kind in kinds] * PART, pa.string()),
        "text": pa.array(texts, pa.string()),
        "weight": pa.array(np.ones(count, np.float32)),
    }
    kind = schemas.BUNDLE_CAPTION
    captions = pa.StructArray.from_arrays(
        [columns.get(field.name, pa.nulls(count, field.type)) for field in kind], fields=list(kind)
    )
    first = pa.array(np.arange(PART + 1, dtype=np.int32) * len(LENGTHS))
    rows = {
        "shard": pa.array([f"{number:05d}"] * PART),
        "key": pa.array([f"{number:05d}{row:05d}" for row in range(PART)]),
        "image_id": ids(number),
        "offset": pa.array(np.arange(PART, dtype=np.int64) * 60_000),
        "size": pa.array(np.full(PART, 50_000, dtype=np.int64)),
        "captions": pa.ListArray.from_arrays(first, captions),
        "mean_similarity": pa.nulls(PART, pa.float32()),
        "distinct_2": pa.nulls(PART, pa.float32()),
    }
    return pa.table({name: rows[name] for name in schemas.BUNDLES.names})


def ids(number: int) -> pa.Array:
    """Ids of the images of a part."""
    text = np.random.default_rng([1, number]).bytes(16 * PART).hex()
    return pa.array([text[start : start + 32] for start in range(0, len(text), 32)])


def manifest(folder: Path, parts: tuple[Part, ...]) -> Manifest:
    """Of parts that need not be there any more."""
    return Manifest("curate", "f", 1, {}, {}, str(folder / "curate"), parts)


def parts_of(folder: Path, images: int) -> tuple[Part, ...]:
    """The first parts of so many images; of fewer than a part it is a part of its own, by `few`."""
    log = CommitLog(Location.of(folder / "curate"))
    if images < PART:
        part = log.get(f"bundles/few-{images}.parquet")
        return (part or few(folder, images),)
    names = [f"bundles/{number:05d}.parquet" for number in range(images // PART)]
    found = [json.loads(line) for line in (folder / "parts.jsonl").read_text().splitlines()]
    parts = {part.name: part for part in map(Part.from_json, found)}
    return tuple(parts[name] for name in names)


def few(folder: Path, images: int) -> Part:
    """A part of few images."""
    data = schemas.encode(table(10**6, words()).slice(0, images), schemas.BUNDLES)
    return CommitLog(Location.of(folder / "curate")).commit(f"bundles/few-{images}.parquet", data, rows=images)


def build(folder: Path, images: int) -> None:
    """Makes parts and, in a process of its own, their pieces; prints how long the pieces took, and what memory."""
    log, vocabulary, parts, text = CommitLog(Location.of(folder / "curate")), words(), [], 0
    for number in range(images // PART):
        data = table(number, vocabulary)
        text += data["captions"].nbytes
        parts.append(log.commit(f"bundles/{number:05d}.parquet", schemas.encode(data, schemas.BUNDLES), rows=PART))
    (folder / "parts.jsonl").write_text("".join(json.dumps(part.to_json()) + "\n" for part in parts))
    print(json.dumps({"captions_gb": text / 1e9}), flush=True)
    index(folder, images)


def index(folder: Path, images: int) -> None:
    """Makes the pieces of parts that are there."""
    shutil.rmtree(folder / "index", ignore_errors=True)
    in_a_process(folder, "index", images)


def index_here(folder: Path, images: int) -> None:
    """In this process, whose memory before is taken off; the processes it starts are said apart."""
    curate, recipe = manifest(folder, parts_of(folder, images)), config()
    clip_encoder()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, time.monotonic()
    bundles = read_bundles(curate, recipe.slots, Location.of(folder / "index"))
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {
        "images": len(bundles),
        "captions": sum(bundles.captions),
        "tokens": sum(len(piece.token) for piece in bundles.pieces),
        "wall_s": round(time.monotonic() - began, 1),
        "cpu_s": round(usage[0].ru_utime + usage[0].ru_stime, 1),  # of this process
        "index_gb": sum(file.stat().st_size for file in (folder / "index").iterdir()) / 1e9,
        "before_mb": before,
        "peak_rss_mb": usage[0].ru_maxrss // 1024,
        "largest_process_mb": usage[1].ru_maxrss // 1024,
    }
    print(json.dumps(found))


def in_a_process(folder: Path, what: str, images: int, *options: str) -> None:
    """Runs a measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training_index", "--folder", str(folder), what]
    subprocess.run([*command, "--images", str(images), *options, "--here"], check=True)


def repeat(folder: Path, times: int) -> None:
    """Pieces of further parts with the captions of the first ones, and the order of all of them, timed."""
    slots, index = config().slots, folder / "index"
    found = [json.loads(line) for line in (folder / "parts.jsonl").read_text().splitlines()]
    first = [part for part in map(Part.from_json, found) if part.digest != "again"]
    first, parts = first[: len({part.name for part in first})], list(first)
    for number in range(len(first), len(first) * times):
        part = replace(first[number % len(first)], name=f"bundles/{number:05d}.parquet", digest=f"again-{number}")
        piece = open_piece(str(index / piece_name(first[number % len(first)], slots)))
        again = replace(piece, image_id=ids(number).cast(pa.large_string()), shard_names=(f"{number:05d}",))
        (index / piece_name(part, slots)).write_bytes(to_bytes(again))
        parts.append(part)
    (folder / "parts.jsonl").write_text("".join(json.dumps(part.to_json()) + "\n" for part in parts))
    began = time.monotonic()
    bundles = read_bundles(manifest(folder, tuple(parts)), slots, Location.of(index))
    print(json.dumps({"images": len(bundles), "order_s": round(time.monotonic() - began, 1), "memory": memory()}))


@cache
def picture() -> bytes:
    """What every shard holds everywhere."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "JPEG")
    return buffer.getvalue()


def one_picture(*_: Any) -> bytes:
    """What is read of every shard."""
    return picture()


class OnePicture(ShardReader):
    """Reads the same picture everywhere."""

    read = one_picture  # type: ignore[assignment]


def start(folder: Path, images: int, workers: int) -> dict[str, Any]:
    """Time from nothing to the first batch, and memory after some more, in this process."""
    began = time.monotonic()
    recipe = config(workers=workers, global_batch=min(BATCH, images // 2), epochs=50)
    curate = manifest(folder, parts_of(folder, images))
    opened = time.monotonic()
    bundles = read_bundles(curate, recipe.slots, Location.of(folder / "index"))
    opened = time.monotonic() - opened
    reader = import_module("benchmarks.training_index").OnePicture({})  # workers know no main module
    batches = loader(BatchMaker(recipe, bundles, reader, canvas=32, context_length=77), 0, workers, pin_memory=False)
    next(batches)
    first = time.monotonic() - began
    for _ in range(BATCHES):
        next(batches)
    found = {"images": images, "open_s": round(opened, 2), "first_batch_s": round(first, 2), "rank": memory()}
    found["workers"] = [memory(process) for process in below(os.getpid()) if is_worker(process)]
    batches.close()
    return found


def memory(process: int | str = "self") -> dict[str, int]:
    """Of a process in MB: what is its own alone, of that what it wrote, and its share of all."""
    kb: Mapping[str, int] = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    }
    clean, dirty = kb["Private_Clean"], kb["Private_Dirty"]
    return {"uss": (clean + dirty) // 1024, "written": dirty // 1024, "pss": kb["Pss"] // 1024}


def below(process: int) -> Iterator[int]:
    """The processes started by this one, and by those."""
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        yield int(child)
        yield from below(int(child))


def is_worker(process: int) -> bool:
    """Whether it is the server's child."""
    return "forkserver" in Path(f"/proc/{process}/cmdline").read_text() and not list(below(process))


def main() -> None:
    """Print a JSON line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    what = parser.add_subparsers(dest="what", required=True)
    what.add_parser("build").add_argument("--images", type=int, default=1_000_000)
    again = what.add_parser("index")
    again.add_argument("--images", type=int, default=1_000_000)
    again.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    what.add_parser("repeat").add_argument("--times", type=int, default=12)
    starting = what.add_parser("start")
    starting.add_argument("--images", type=int, nargs="+")
    starting.add_argument("--workers", type=int, default=2)
    starting.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "build":
        build(options.folder, options.images)
    elif options.what == "index":
        (index_here if options.here else index)(options.folder, options.images)
    elif options.what == "repeat":
        repeat(options.folder, options.times)
    elif options.here:
        print(json.dumps(start(options.folder, options.images[0], options.workers)))
    else:
        for images in options.images:  # the first one of a size may have to be made
            in_a_process(options.folder, "start", images, "--workers", str(options.workers))


if __name__ == "__main__":
    main()
