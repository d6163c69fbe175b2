"""Tables in Parquet, whose texts need not be the UTF-8 that the file says they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.ingest.tally import Tally
from pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 16_384  # rows that are in memory


class Parquet:
    """The columns of a Parquet file that are asked for, batch by batch."""

    unit = "row"

    def __init__(self, location: Location) -> None:
        self.location = location

    def names(self) -> list[str]:
        return [field.name for field in self._schema]

    def types(self) -> list[pa.DataType]:
        return [field.type for field in self._schema]

    def rows(self, columns: Sequence[int | None], left_out: Tally) -> Iterator[tuple[int, list[Any]]]:  # noqa: ARG002
        import pyarrow.parquet as pq

        with _opened(self.location) as handle:
            file, number = pq.ParquetFile(handle), 0
            names = file.schema_arrow.names
            wanted = sorted({names[column] for column in columns if column is not None})
            # Threads of pyarrow must not call back into a handle of Python's (see `Location.open_arrow`).
            for batch in file.iter_batches(BATCH, columns=wanted, use_threads=self.location.is_local):
                values = [_plain(_column(batch, names, column)) for column in columns]
                for row in zip(*(value or [None] * batch.num_rows for value in values), strict=True):
                    number += 1
                    yield number, list(row)

    @cached_property
    def _schema(self) -> pa.Schema:
        import pyarrow.parquet as pq

        with _opened(self.location) as handle:
            return pq.ParquetFile(handle).schema_arrow


def may_hold(kind: pa.DataType, is_text: bool) -> bool:
    """Whether a column of an Arrow type may hold texts (or names). A column of floats may be all NaN."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return may_hold(kind.value_type, is_text)
    if _is_list(kind):
        return is_text and not _is_list(kind.value_type) and may_hold(kind.value_type, is_text)
    if types.is_null(kind) or types.is_floating(kind):
        return True
    if types.is_integer(kind):
        return not is_text
    return any(
        test(kind)
        for test in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
            types.is_fixed_size_binary,
        )
    )


def _is_list(kind: pa.DataType) -> bool:
    return hasattr(kind, "value_field")


def _column(batch: pa.RecordBatch, names: Sequence[str], column: int | None) -> pa.Array | None:
    """A column by its position in the file; several may have one name."""
    if column is None:
        return None
    same = batch.schema.get_all_field_indices(names[column])
    return batch.column(same[names[:column].count(names[column])])


def _plain(array: pa.Array | None) -> list[Any]:
    """Values of Python; a text that is not UTF-8, whatever the file says, is bytes."""
    if array is None:
        return []
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        values = [_plain_value(value) for value in array]
    if _is_list(array.type):  # of a column of lists null is a list without items
        return [[] if value is None else value for value in values]
    return list(values)


def _plain_value(scalar: pa.Scalar) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.DictionaryScalar):
            return _plain_value(scalar.value)
        if isinstance(scalar, pa.ListScalar):
            return [_plain_value(value) for value in scalar.values]
        return scalar.as_buffer().to_pybytes()


@contextmanager
def _opened(location: Location) -> Iterator[Any]:
    import pyarrow as pa

    with pa.OSFile(location.uri) if location.is_local else location.open() as handle:
        yield handle
