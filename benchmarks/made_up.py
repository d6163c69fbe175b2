"""Made-up data for measurements of training: JPEGs of photo size in tars, and captions of stated lengths.

Pictures are smooth colours with a camera's noise; some differ, and all have bytes of their own behind their end, so
that each is another picture to ours. Of its eight captions one is long and the others short, in tokens with both ends.
Tars hold a caption beside each picture, as webdataset wants it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline import identity, schemas
from pipeline.shards import ShardReader
from training.bundles import Bundles, in_memory
from training.config import RunConfig
from training.index.piece import piece_of
from training.slots import DEFAULT_SLOTS

LONG_TOKENS, SHORT_TOKENS = (50, 77), (8, 30)  # with start and end token, both numbers included
LONG_SLOT = "detail"
DIFFERENT = 16
# Words of one token each.
WORDS = ["red", "blue", "green", "small", "large", "old", "new", "dog", "cat", "man", "tree", "house", "water", "sky"]


@dataclass(frozen=True)
class Data:
    """Tars, and the same as ours reads them."""

    tars: tuple[Path, ...]
    table: pa.Table  # bundles
    reader: ShardReader
    kilobytes: float  # of a picture, on the mean

    def bundles(self, config: RunConfig) -> Bundles:
        """The samples that a recipe's slots take."""
        return in_memory([piece_of(self.table, config.slots)])


def make(folder: Path, images: int, side: int, shards: int = 1, slots: Sequence[str] = DEFAULT_SLOTS) -> Data:
    """Writes the tars below `folder`. The caption beside a picture is that of the first slot."""
    rng, rows, tars, total = np.random.default_rng(side), [], [], 0
    pictures = [jpeg(side, rng) for _ in range(min(DIFFERENT, images))]
    config = RunConfig(slots=tuple(slots))
    for shard in range(shards):
        tars.append(folder / f"{shard:05d}.tar")
        with tarfile.open(tars[-1], "w") as tar:
            for number in range(shard, images, shards):
                data = pictures[number % len(pictures)] + number.to_bytes(8, "little")
                total += len(data)
                texts = {slot.name: text(slot.name, rng) for slot in config.slots}
                offset = _add(tar, f"{number:09d}.jpg", data)
                _add(tar, f"{number:09d}.txt", texts[config.slots[0].name].encode())
                captions = [_caption(slot, texts[slot.name]) for slot in config.slots]
                place = {"shard": tars[-1].stem, "key": f"{number:09d}", "offset": offset, "size": len(data)}
                rows.append({**place, "image_id": identity.image_id(data), "captions": captions})
    table = schemas.table(schemas.BUNDLES, rows)
    reader = ShardReader({tar.stem: str(tar) for tar in tars})
    return Data(tuple(tars), table, reader, total / images / 1000)


def jpeg(side: int, rng: np.random.Generator) -> bytes:
    """About as large as a photo of this size."""
    small = rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    smooth = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    noisy = np.asarray(smooth) + rng.normal(0, 4, (side, side, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def text(slot: str, rng: np.random.Generator) -> str:
    low, high = LONG_TOKENS if slot == LONG_SLOT else SHORT_TOKENS
    return " ".join(rng.choice(WORDS, size=rng.integers(low, high + 1) - 2))


def _caption(slot: object, text: str) -> dict[str, object]:
    perspective, granularity = getattr(slot, "perspective", ""), getattr(slot, "granularity", None) or "sentence"
    kind = {"perspective": perspective, "granularity": granularity, "level": "scene", "source": "caption"}
    return {**kind, "caption_id": identity.digest(text)[:16], "text": text, "weight": 1.0, "n_tokens": 0}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Adds a member; returns where its bytes begin."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
    return tar.offset - (len(data) + 511) // 512 * 512


def open_clip_arguments(data: Data, batch: int) -> SimpleNamespace:
    """What open_clip's loader wants to know of its command line, for one process that reads all tars once an epoch."""
    return SimpleNamespace(
        train_data="::".join(map(str, data.tars)),
        train_num_samples=data.table.num_rows,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=batch,
        workers=0,
        world_size=1,
    )
