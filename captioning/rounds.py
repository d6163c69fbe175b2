"""Regeneration rounds: some images are asked the same questions in other words, answered at a higher temperature.

A round is additive like any other prompt: its captions are cells of their own in the same store, so it can be stopped
anywhere, and what it wrote once is never asked for again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pipeline.identity import digest
from pipeline.storage import Location

REQUESTS = "_requests"
ROUND = "round"  # stage of the manifests of regeneration rounds


@dataclass(frozen=True)
class ImageList:
    """Ids of images in a file, so that work items and actors carry a reference only."""

    file: str
    digest: str
    count: int

    @classmethod
    def write(cls, store: Location, image_ids: Sequence[str]) -> ImageList:
        """Keep these ids in the caption store; the same ids are the same list."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        ids = sorted(set(image_ids))
        identity = digest(ids)
        file = store / REQUESTS / f"{identity[:16]}.parquet"
        if not (file.exists() and _is_whole(file, ids)):
            sink = io.BytesIO()
            pq.write_table(pa.table({"image_id": pa.array(ids, pa.string())}), sink, compression="zstd")
            file.write(sink.getvalue())
            _ids.cache_clear()
        return cls(file.uri, identity, len(ids))

    def __contains__(self, image_id: object) -> bool:
        return image_id in _ids(self.file)


def _is_whole(file: Location, ids: Sequence[str]) -> bool:
    """Whether a list that is there is the one that its name says."""
    try:
        return _ids(file.uri) == frozenset(ids)
    except (OSError, ValueError, KeyError):  # pyarrow's errors of damaged files are among these
        return False


@lru_cache(maxsize=4)
def _ids(file: str) -> frozenset[str]:
    import pyarrow.parquet as pq

    with Location.of(file).open_arrow() as handle:
        return frozenset(pq.read_table(handle)["image_id"].to_pylist())


@dataclass(frozen=True)
class Round:
    """The `number`-th regeneration round (from 1 on) over the listed images."""

    number: int
    images: ImageList
    temperature: float
