"""A shard of training pictures: a WebDataset tar of pictures and alt texts, and beside it a table of captions."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

SHARD = 1000  # pictures of a full shard
JPEG_QUALITY = 92

Caption = dict[str, Any]  # key, perspective, granularity, text


class Sample(NamedTuple):
    """A picture, what the web says of it, and its captions."""

    key: str
    picture: Image.Image
    alt_text: str
    captions: list[Caption]


def write_shard(path: Path, samples: Iterable[Sample]) -> None:
    """Write a tar, and a Parquet file of its name. The tar gets its name last: where it is, the shard is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    captions: list[Caption] = []
    unfinished = path.with_suffix(".part")
    with tarfile.open(unfinished, "w") as tar:
        for sample in samples:
            picture = io.BytesIO()
            sample.picture.save(picture, "JPEG", quality=JPEG_QUALITY)
            _add(tar, f"{sample.key}.jpg", picture.getvalue())
            _add(tar, f"{sample.key}.txt", sample.alt_text.encode())
            captions += sample.captions
    pq.write_table(pa.Table.from_pylist(captions), path.with_suffix(".parquet"), compression="zstd")
    os.replace(unfinished, path)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
