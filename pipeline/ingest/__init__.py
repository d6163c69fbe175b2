"""Ingest: images from folders, WebDataset tars or URL lists become shards that every later stage reads by offset.

Later stages use the three functions below and nothing else of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import StoreError
from pipeline.manifest import Manifest
from pipeline.summary import counted

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES_FOLDER = "images"


def shard_names(manifest: Manifest) -> list[str]:
    """Names of the shards of an ingest manifest, in order."""
    return sorted(manifest.detail["shards"])


def shard_uris(manifest: Manifest) -> dict[str, str]:
    """Where the tar of every shard lies: what `ShardReader` is made of."""
    return {
        name: uri if uri.startswith("/") or "://" in uri else f"{manifest.store}/{uri}"
        for name, uri in sorted(manifest.detail["shards"].items())
    }


def shard_images(manifest: Manifest, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The images table of one shard, error rows included, in the order of their keys."""
    from pipeline import schemas

    parts = manifest.of_shard(shard)
    if not parts:
        raise StoreError(
            f"shard {shard!r} is not in the ingest manifest (it has {counted(len(manifest.parts), 'shard')})"
        )
    return manifest.read(parts[0], schemas.IMAGES, columns)
