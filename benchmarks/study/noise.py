"""Noise planted among the true captions of the training scenes, as a table of captions of its own.

Every scene gets three captions that are no good, beside its seven or so true ones: the detail of another scene, a copy
of one of its own, and by chance a refusal or an empty phrase. What curation makes of them is what the rows `raw` and
`curated` compare; without noise they would be `o2m_truth`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.study.shards import Caption

REFUSALS = ("I'm sorry, but I can't help with that.", "I cannot see an image. Please provide one.")
EMPTY_PHRASES = ("Image.", "Untitled.")


def write_noise(captions: Path, out: Path) -> None:
    """For each table of true captions in a folder a table of noise in another, unless it is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(sorted(captions.glob("*.parquet"))):
        if (out / path.name).exists():
            continue
        noise = list(planted(pq.read_table(path).to_pylist(), np.random.default_rng((number, 5381))))
        unfinished = out / f"{path.stem}.part"
        pq.write_table(pa.Table.from_pylist(noise), unfinished, compression="zstd")
        os.replace(unfinished, out / path.name)


def planted(captions: list[Caption], rng: np.random.Generator) -> Iterator[Caption]:
    """The noise of one shard's scenes, of which there are at least two."""
    scenes: dict[str, list[Caption]] = defaultdict(list)
    for caption in captions:
        scenes[caption["key"]].append(caption)
    keys = sorted(scenes)
    shift = int(rng.integers(1, len(keys)))  # so that nobody gets a caption of its own
    for place, key in enumerate(keys):
        other = scenes[keys[(place + shift) % len(keys)]]
        yield {**_of(other, "detail"), "key": key}
        yield dict(scenes[key][int(rng.integers(len(scenes[key])))])
        empty = (*REFUSALS, *EMPTY_PHRASES)[int(rng.integers(4))]
        yield {**_of(scenes[key], "detail"), "text": empty}


def _of(captions: list[Caption], perspective: str) -> Caption:
    return next(caption for caption in captions if caption["perspective"] == perspective)
