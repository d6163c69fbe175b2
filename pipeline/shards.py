"""Reading images out of shards (WebDataset tars) by offset.

A shard is opened once and read at any position, so order is free: captioning walks chunks, training jumps
at random, and the caption browser asks for one picture.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping

from pipeline import identity
from pipeline.errors import StoreError
from pipeline.storage import Location
from pipeline.summary import counted

MAX_OPEN_FILES = 64


class _Descriptor:
    """An open file that closes with its last reference."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class ShardReader:
    """Random access to the encoded images of shards; picklable, and safe to use from threads and after a fork."""

    def __init__(self, shards: Mapping[str, str]) -> None:
        """`shards` maps a shard's name to the URI of its tar."""
        self.shards = dict(shards)
        self._open = threading.local()  # one thread must not close what another reads

    def read(self, shard: str, offset: int, size: int, image_id: str | None = None) -> bytes:
        """The `size` bytes at `offset` of a shard.

        Raises `StoreError`, which names the shard, if it is gone or cut short, or if the bytes are not those of the
        picture `image_id`.
        """
        uri = self.shards.get(shard)
        if uri is None:
            raise StoreError(f"shard {shard!r} is not in the manifest (it has {counted(len(self.shards), 'shard')})")
        location = Location.of(uri)
        try:
            data = (
                os.pread(self._descriptor(uri).number, size, offset)  # no seek: forks share the position
                if location.is_local
                else location.read_range(offset, size)
            )
        except FileNotFoundError as error:
            raise StoreError(
                f"shard {shard!r} is not at {uri} any more; put it back, or make it again: "
                "holism ingest CONFIG --retry-failed"
            ) from error
        if len(data) != size:
            raise StoreError(f"shard {shard!r} at {uri} ends before byte {offset + size}; it was cut or replaced")
        if image_id is not None and identity.image_id(data) != image_id:
            raise StoreError(
                f"shard {shard!r} at {uri} is damaged: what lies at byte {offset} is not the picture that was "
                "ingested; put the shard back, or make it again: holism ingest CONFIG --retry-failed"
            )
        return data

    def _descriptor(self, uri: str) -> _Descriptor:
        files = self._files()
        descriptor = files.pop(uri, None) or _Descriptor(uri)
        files[uri] = descriptor
        if len(files) > MAX_OPEN_FILES:
            files.popitem(last=False)
        return descriptor

    def _files(self) -> OrderedDict[str, _Descriptor]:
        files: OrderedDict[str, _Descriptor] = self._open.__dict__.setdefault("files", OrderedDict())
        return files

    def close(self) -> None:
        """Close the files of this thread; those of others close with their threads."""
        self._files().clear()

    def __getstate__(self) -> dict[str, object]:
        return {"shards": self.shards}

    def __setstate__(self, state: Mapping[str, Mapping[str, str]]) -> None:
        self.shards, self._open = dict(state["shards"]), threading.local()
