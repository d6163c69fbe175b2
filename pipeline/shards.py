"""Reading images out of shards (WebDataset tars) by offset.

A shard is opened once and read at any position, so order is free: captioning walks chunks, training jumps
at random, and the caption browser asks for one picture.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping

from pipeline.errors import StoreError
from pipeline.storage import Location

MAX_OPEN_FILES = 64


class ShardReader:
    """Random access to the encoded images of shards; picklable, and safe to use after a fork."""

    def __init__(self, shards: Mapping[str, str]) -> None:
        """`shards` maps a shard's name to the URI of its tar."""
        self.shards = dict(shards)
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The `size` bytes at `offset` of a shard. A shard that is gone or cut short is named in the error."""
        uri = self.shards.get(shard)
        if uri is None:
            raise StoreError(f"shard {shard!r} is not in the manifest (it has {len(self.shards)} shards)")
        location = Location.of(uri)
        try:
            data = (
                os.pread(self._descriptor(uri), size, offset)  # no seek: threads and forks can share it
                if location.is_local
                else location.read_range(offset, size)
            )
        except FileNotFoundError as error:
            raise StoreError(f"shard {shard!r} is not at {uri} any more; ingest again or put it back") from error
        if len(data) != size:
            raise StoreError(f"shard {shard!r} at {uri} ends before byte {offset + size}; it was cut or replaced")
        return data

    def _descriptor(self, uri: str) -> int:
        descriptor = self._open.pop(uri, None)
        if descriptor is None:
            descriptor = os.open(uri, os.O_RDONLY | os.O_CLOEXEC)
            if len(self._open) >= MAX_OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        self._open[uri] = descriptor
        return descriptor

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict[str, object]:
        return {"shards": self.shards, "_open": OrderedDict()}

    def __del__(self) -> None:
        self.close()
