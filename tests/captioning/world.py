"""A few tiny pictures, really ingested, and the caption stage over them with any configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captioning.config import CaptionConfig
from captioning.stage import STAGE
from captioning.store import shard_captions
from pipeline.cluster.config import ClusterConfig
from pipeline.config import build
from pipeline.ingest import shard_images, shard_names
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.stage import STAGE as INGEST
from pipeline.manifest import Manifest
from pipeline.stage import execute, resolve
from pipeline.workspace import Workspace

PROMPTS = {"set": "paper", "only": ["phrase", "nouns", "style"]}


def pictures(folder: Path, count: int) -> Path:
    """Write `count` different noise pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    return folder


def workspace(root: Path, images: int = 20, shard_images: int = 12) -> Workspace:
    """A workspace whose ingest of `images` pictures is done."""
    made = Workspace(str(root / "ws"))
    ingest(made, pictures(root / "pictures", images), shard_images)
    return made


def ingest(made: Workspace, folder: Path, shard_images: int) -> Manifest:
    """Ingest a folder of pictures."""
    config = ingest_config(folder, shard_images)
    return execute(resolve([INGEST], {"ingest": config}, made)["ingest"], made)


def ingest_config(folder: Path, shard_images: int) -> IngestConfig:
    """One worker, small shards."""
    data = {"source": {"kind": "folder", "path": str(folder)}, "shard_images": shard_images, "workers": 1}
    return build(IngestConfig, data)


def config(**settings: Any) -> CaptionConfig:
    """The fake engine in this process, chunks of four images; `settings` replace sections."""
    base: dict[str, Any] = {
        "engine": {"kind": "fake"},
        "prompts": PROMPTS,
        "chunk_images": 4,
        "ray": {"enabled": False},
    }
    return build(CaptionConfig, {**base, **settings})


def caption(
    made: Workspace, settings: CaptionConfig, *, retry_failed: bool = False, cluster: ClusterConfig | None = None
) -> Manifest:
    """Run the caption stage on the workspace's newest ingest."""
    source = made.manifests("ingest")[0]
    configs = {"ingest": build(IngestConfig, source.config), "caption": settings}
    resolution = resolve([INGEST, STAGE], configs, made)["caption"]
    return execute(resolution, made, retry_failed=retry_failed, cluster=cluster)


def rows(manifest: Manifest, made: Workspace) -> list[dict[str, Any]]:
    """All caption rows that the manifest selects."""
    return [
        row
        for shard in shard_names(made.manifests("ingest")[0])
        for row in shard_captions(manifest, shard).to_pylist()
    ]


def content(manifest: Manifest, made: Workspace) -> list[tuple[str, str, str, str | None]]:
    """What must be the same after any interruption, sorted; a list, so that doubles show."""
    return sorted((row["key"], row["caption_id"], row["status"], row["text"]) for row in rows(manifest, made))


def image_ids(made: Workspace) -> list[str]:
    """Ids of all images that ingest could read, in row order."""
    source = made.manifests("ingest")[0]
    return [
        row["image_id"]
        for shard in shard_names(source)
        for row in shard_images(source, shard).to_pylist()
        if row["status"] == "ok"
    ]
