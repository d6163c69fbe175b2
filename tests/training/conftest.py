"""Shared pieces of the training tests: tiny towers, a tar of pictures and the bundles that describe it."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import schemas
from pipeline.commits import CommitLog
from pipeline.identity import image_id
from pipeline.manifest import Manifest
from pipeline.storage import Location

torch.set_num_threads(1)

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "white": (240, 240, 240)}


@pytest.fixture(scope="session")
def tiny_architecture() -> dict[str, Any]:
    """Towers small enough for a unit test: 16 patches, two layers."""
    return {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }


def picture(index: int) -> bytes:
    """A noisy picture of one colour, at a size of its own."""
    rng = np.random.default_rng(index)
    color = np.array(list(COLORS.values())[index % 4])
    pixels = np.clip(color + rng.normal(0, 20, (36 + index % 5, 40, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def captions_of(index: int) -> list[dict[str, Any]]:
    """A caption or two for each of three slots; every third picture lacks its style."""
    color = list(COLORS)[index % 4]
    texts = [
        ("alt_text", "phrase", f"{color} {index}"),
        ("detail", "paragraph", f"picture number {index} is all {color} with some noise upon it"),
        ("detail", "paragraph", f"a {color} plane, the {index}th of its kind"),
    ]
    if index % 3:
        texts.append(("style", "phrase", f"{color} mood"))
    blank = {"caption_id": None, "source": "caption", "level": None, "weight": 1.0, "n_tokens": None}
    return [{**blank, "perspective": p, "granularity": g, "text": text} for p, g, text in texts]


def make_inputs(folder: Path, count: int, damaged: tuple[int, ...] = ()) -> dict[str, Manifest]:
    """An ingest and a curate manifest over two shards of `count` pictures in all; `damaged` ones do not decode."""
    shards: dict[str, str] = {}
    curate = CommitLog(Location.of(folder / "curate"))
    parts = []
    for name, indices in (("a", range(count // 2)), ("b", range(count // 2, count))):
        rows = []
        (folder / "ingest").mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / "ingest" / f"{name}.tar", "w") as tar:
            for index in indices:
                data = b"no picture %d" % index if index in damaged else picture(index)
                info = tarfile.TarInfo(f"{index:04d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                start = tar.offset - (len(data) + 511) // 512 * 512
                place = {
                    "shard": name,
                    "key": info.name,
                    "image_id": image_id(data),
                    "offset": start,
                    "size": len(data),
                }
                rows.append({**place, "captions": captions_of(index)})
        shards[name] = f"{name}.tar"
        data = schemas.encode(schemas.table(schemas.BUNDLES, rows), schemas.BUNDLES)
        parts.append(curate.commit(f"bundles/{name}.parquet", data, rows=len(rows)))
    common: dict[str, Any] = {"fingerprint": "f", "version": 1, "config": {}, "inputs": {}}
    return {
        "ingest": Manifest("ingest", store=str(folder / "ingest"), parts=(), detail={"shards": shards}, **common),
        "curate": Manifest("curate", store=str(folder / "curate"), parts=tuple(parts), **common),
    }


@pytest.fixture
def recipe(tiny_architecture: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    """A recipe for the tiny towers, with what a test wants otherwise."""

    def make(**changes: Any) -> dict[str, Any]:
        base = {
            "model": tiny_architecture,
            "slots": ["alt_text", "detail", "style"],
            "epochs": 3,
            "global_batch": 6,
            "lr": 1e-3,
            "warmup_steps": 2,
            "precision": "fp32",
            "workers": 0,
            "threads": 1,
            "log_every": 2,
            "device": "cpu",
        }
        return {**base, **changes}

    return make
