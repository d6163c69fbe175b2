"""Small pictures with known bytes, and one call that ingests them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import build
from pipeline.ingest import shard_images, shard_names
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.stage import STAGE
from pipeline.manifest import Manifest
from pipeline.stage import execute, resolve
from pipeline.workspace import Workspace


def picture(seed: int, size: tuple[int, int] = (24, 16), kind: str = "JPEG") -> bytes:
    """An encoded picture of noise, the same for the same seed; size is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, kind)
    return sink.getvalue()


def put(path: Path, data: bytes | str) -> Path:
    """Write a file and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def make_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A tar of these members, in this order, as any other program would write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def config(source: dict[str, Any], **settings: Any) -> IngestConfig:
    """An ingest section, in one process unless told otherwise."""
    return build(IngestConfig, {"workers": 1, **settings, "source": source})


def ingest(workspace: Path | str, section: IngestConfig, *, retry_failed: bool = False) -> Manifest:
    """Run the stage as the command line does."""
    space = Workspace(str(workspace))
    return execute(resolve([STAGE], {"ingest": section}, space)["ingest"], space, retry_failed=retry_failed)


def rows(manifest: Manifest) -> list[dict[str, Any]]:
    """All rows of all shards."""
    return [row for shard in shard_names(manifest) for row in shard_images(manifest, shard).to_pylist()]


def by_source(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Rows by where they came from."""
    return {row["source"]: row for row in rows(manifest)}
