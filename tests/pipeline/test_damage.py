"""One flipped bit anywhere in a part, a manifest or a shard is named, never read as other content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline import schemas
from pipeline.errors import StoreError
from pipeline.ingest import shard_images, shard_names, shard_uris
from pipeline.manifest import Manifest
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.pipeline.images import config, ingest, picture, put

FLIPS = 150


@pytest.fixture
def ingested(tmp_path: Path) -> Manifest:
    for number in range(4):
        put(tmp_path / "in" / f"{number}.jpg", picture(number))
    return ingest(tmp_path / "ws", config({"kind": "folder", "path": str(tmp_path / "in")}))


def flips(file: Path) -> list[bytes]:
    """The file's bytes with one bit changed, at different places; the first and the last byte among them."""
    data = file.read_bytes()
    rng, found = np.random.default_rng(0), []
    for place in [0, len(data) - 1, *rng.integers(0, len(data), FLIPS).tolist()]:
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(0, 8))
        found.append(bytes(changed))
    return found


def test_a_part_that_is_not_what_its_record_says_is_not_read(ingested: Manifest) -> None:
    (part,) = ingested.parts
    file = Path(ingested.location(part).uri)
    for data in flips(file):
        file.write_bytes(data)
        with pytest.raises(StoreError, match=rf"{file} is damaged: .*holism ingest CONFIG --retry-failed"):
            ingested.read(part, schemas.IMAGES, ["key"])
        with pytest.raises(StoreError):
            shard_images(ingested, shard_names(ingested)[0])


def test_a_manifest_whose_text_changed_is_not_read(ingested: Manifest, tmp_path: Path) -> None:
    (file,) = (tmp_path / "ws" / "manifests").iterdir()
    assert Manifest.load(Location.of(file)).digest == ingested.digest
    for data in flips(file):
        file.write_bytes(data)
        with pytest.raises(StoreError, match="is damaged"):
            Manifest.load(Location.of(file))


def test_a_picture_that_is_not_what_was_ingested_is_not_read(ingested: Manifest) -> None:
    (shard,) = shard_names(ingested)
    tar = Path(shard_uris(ingested)[shard])
    row = shard_images(ingested, shard).to_pylist()[1]
    where = (row["offset"], row["size"], row["image_id"])
    whole = tar.read_bytes()
    assert ShardReader(shard_uris(ingested)).read(shard, *where) == whole[row["offset"] : row["offset"] + row["size"]]
    for place in (row["offset"], row["offset"] + row["size"] - 1):
        changed = bytearray(whole)
        changed[place] ^= 16
        tar.write_bytes(bytes(changed))
        with pytest.raises(StoreError, match=rf"shard '{shard}' at {tar} is damaged"):
            ShardReader(shard_uris(ingested)).read(shard, *where)
    tar.write_bytes(b"\0" * len(whole))
    with pytest.raises(StoreError, match="is damaged"):
        ShardReader(shard_uris(ingested)).read(shard, *where)
