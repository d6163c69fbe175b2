"""A statistic of the whole corpus: counted shard by shard, then merged, with flat memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import pyarrow as pa

from captioning.curate.draft import Draft

T_co = TypeVar("T_co", covariant=True)


class Statistic(Protocol[T_co]):
    """What one pass over all captions finds out. Neither rows' nor shards' order, nor their layout, may matter."""

    @property
    def name(self) -> str:
        """Folder of its parts."""

    @property
    def digest(self) -> str:
        """Of the parameters that `of_shard` depends on."""

    def of_shard(self, draft: Draft) -> pa.Table:
        """Count one shard: a small table that can be merged."""

    def merge(self, tables: Iterator[pa.Table]) -> T_co:
        """The result: small, and the same for the same captions, whatever the shards."""
