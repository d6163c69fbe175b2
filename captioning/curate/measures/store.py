"""Measures by content: values that are expensive to compute are computed once, whatever thresholds change later.

A measure gives every id one row of numbers: an image-text score, a sentence embedding. The id says what was measured
(a digest of the content), the store's digest says by which model. So a value is never out of date: a part is only
ever extended, and another model has another folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage import Location

Compute = Callable[[Sequence[int]], np.ndarray]


class MeasureStore:
    """The values of one measure by one model: `{folder}/{name}-{digest[:12]}/{shard}.parquet`, columns id and value.

    `digest` is that of the model and of all that decides its values, `width` how many numbers a value has. They are
    stored as `dtype` and come back so rounded, when they are computed as when they are remembered.
    """

    def __init__(
        self, folder: Location, name: str, digest: str, width: int, *, dtype: type[np.floating[Any]] = np.float32
    ) -> None:
        self.folder = folder / f"{name}-{digest[:12]}"
        self.width, self.dtype = width, dtype
        numbers = pa.list_(pa.from_numpy_dtype(dtype), width)
        self._schema = pa.schema([("id", pa.string()), ("value", numbers)])

    def values(self, shard: str, ids: Sequence[str], compute: Compute) -> np.ndarray:
        """The values of these ids, (ids, width) float32.

        `compute` gets the positions in `ids` of the first occurrences of those that are not stored, and returns their
        values, (positions, width). It is not called if there are none.
        """
        known, wanted = self._read(shard), pa.array(ids, pa.string())
        places = pc.index_in(wanted, value_set=known["id"])
        missing = _first_occurrences(ids, np.flatnonzero(places.is_null()).tolist())
        if missing:
            fresh = self._table([ids[position] for position in missing], compute(missing))
            known = pa.concat_tables([known, fresh]).sort_by("id").combine_chunks()
            self._write(shard, known)
            places = pc.index_in(wanted, value_set=known["id"])
        return self._numbers(known)[places.to_numpy()]

    def _table(self, ids: Sequence[str], values: np.ndarray) -> pa.Table:
        if values.shape != (len(ids), self.width):
            raise ValueError(f"a measure of width {self.width} for {len(ids)} ids has the shape {values.shape}")
        flat = pa.array(np.ascontiguousarray(values, self.dtype).ravel())
        columns = [pa.array(ids, pa.string()), pa.FixedSizeListArray.from_arrays(flat, self.width)]
        return pa.table(columns, self._schema)

    def _numbers(self, table: pa.Table) -> np.ndarray:
        flat = table["value"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, self.width).astype(np.float32)

    def _part(self, shard: str) -> Location:
        return self.folder / f"{shard}.parquet"

    def _read(self, shard: str) -> pa.Table:
        """What is stored of a shard. A damaged or foreign file counts as none: its values can be computed again."""
        part = self._part(shard)
        if part.exists():
            try:
                with part.open_arrow() as handle:
                    table = pq.read_table(handle, page_checksum_verification=True)
                if table.schema.equals(self._schema):
                    return table
            except (OSError, pa.ArrowException):
                pass
        return self._schema.empty_table()

    def _write(self, shard: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_page_checksum=True)
        self._part(shard).write(bytes(sink.getvalue().to_pybytes()))


def _first_occurrences(ids: Sequence[str], positions: Sequence[int]) -> list[int]:
    first: dict[str, int] = {}
    for position in positions:
        first.setdefault(ids[position], position)
    return list(first.values())
