"""Reading images out of shards (WebDataset tars) by offset.

A shard is opened once and read at any position, so order is free: captioning walks chunks, training jumps
at random, and the caption browser asks for one picture. Of shards on an object store whole spans may be kept on this
machine (`pipeline.shard_cache`).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline import identity
from pipeline.errors import StoreError
from pipeline.shard_cache import ShardCache, Span
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

    def __init__(self, shards: Mapping[str, str], cache: ShardCache | None = None) -> None:
        """`shards` maps a shard's name to the URI of its tar; `cache` keeps spans of those that are not local."""
        self.shards, self.cache = dict(shards), cache
        self._open = threading.local()  # one thread must not close what another reads

    @property
    def is_remote(self) -> bool:
        """Whether some shard is not on this machine's file system."""
        return any(not Location.of(uri).is_local for uri in self.shards.values())

    def read(self, shard: str, offset: int, size: int, image_id: str | None = None, span: Span | None = None) -> bytes:
        """The `size` bytes at `offset` of a shard; with a `span` around them it is kept in the cache, if there is one.

        Raises `StoreError`, which names the shard, if it is gone or cut short, or if the bytes are not those of the
        picture `image_id`.
        """
        location = self._location(shard)
        data = None
        if self.cache is not None and span is not None and not location.is_local:
            with _gone_is_named(shard, location):
                data = self.cache.read(location, span, offset, size)
            if not _is_picture(data, size, image_id):  # damaged here, or there: the shard itself tells
                self.cache.drop(location, span)
                data = None
        if data is None:
            with _gone_is_named(shard, location):
                data = self._read(location, offset, size)
        if len(data) != size:
            raise StoreError(f"shard {shard!r} at {location} ends before byte {offset + size}; it was cut or replaced")
        if not _is_picture(data, size, image_id):
            raise StoreError(
                f"shard {shard!r} at {location} is damaged: what lies at byte {offset} is not the picture that was "
                "ingested; put the shard back, or make it again: holism ingest CONFIG --retry-failed"
            )
        return data

    def fetch(self, shard: str, span: Span) -> None:
        """Has a span of a shard in the cache, for a later `read`."""
        location = self._location(shard)
        if self.cache is not None and not location.is_local:
            self.cache.fetch(location, span)

    def _location(self, shard: str) -> Location:
        uri = self.shards.get(shard)
        if uri is None:
            raise StoreError(f"shard {shard!r} is not in the manifest (it has {counted(len(self.shards), 'shard')})")
        return Location.of(uri)

    def _read(self, location: Location, offset: int, size: int) -> bytes:
        if not location.is_local:
            return location.read_range(offset, size)
        return os.pread(self._descriptor(location.uri).number, size, offset)  # no seek: forks share the position

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

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "cache": self.cache}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.shards, self.cache, self._open = dict(state["shards"]), state["cache"], threading.local()


def _is_picture(data: bytes, size: int, image_id: str | None) -> bool:
    return len(data) == size and (image_id is None or identity.image_id(data) == image_id)


@contextmanager
def _gone_is_named(shard: str, location: Location) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(
            f"shard {shard!r} is not at {location} any more; put it back, or make it again: "
            "holism ingest CONFIG --retry-failed"
        ) from error
