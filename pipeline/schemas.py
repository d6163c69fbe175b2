"""The tables of a workspace as versioned Arrow schemas, and the one way they are written to Parquet.

Every file carries its table's name and version, opens as it is in DuckDB, pandas and Hugging Face `datasets`,
and is compressed with zstd. Raising a version changes the contract: readers name the version that they have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import contents
from pipeline.errors import StoreError
from pipeline.storage import Location

_WORD = pa.dictionary(pa.int32(), pa.string())  # columns of few distinct values


def _schema(table: str, version: int, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={"holism.table": table, "holism.version": str(version)})


IMAGES = _schema(
    "images",
    1,
    [
        ("shard", _WORD),
        ("key", pa.string()),  # the row's identity; the same picture may occur twice
        ("image_id", pa.string()),  # hash of the stored bytes; null on error
        ("offset", pa.int64()),  # of the encoded image inside the shard's tar
        ("size", pa.int64()),
        ("source", pa.string()),  # path or URL the image came from
        ("source_hash", pa.string()),  # hash of the bytes as they came
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("format", _WORD),
        ("url", pa.string()),
        ("alt_text", pa.string()),
        ("status", _WORD),  # ok | error
        ("error", pa.string()),
    ],
)

CAPTIONS = _schema(
    "captions",
    1,
    [
        ("caption_id", pa.string()),
        ("shard", _WORD),
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("cell", _WORD),  # the (prompt, model) pair this row answers; a manifest selects by it
        ("perspective", _WORD),
        ("granularity", _WORD),
        ("level", _WORD),
        ("prompt_id", _WORD),
        ("paraphrase", pa.int16()),
        ("prompt_hash", _WORD),
        ("parent_id", pa.string()),  # the caption a chain went on from
        ("model", _WORD),
        ("revision", _WORD),
        ("engine", _WORD),
        ("engine_version", _WORD),
        ("sampling", _WORD),  # canonical JSON
        ("sample_index", pa.int32()),
        ("seed", pa.int64()),
        ("text", pa.string()),  # exactly as the engine gave it; null on error
        ("prompt_tokens", pa.int32()),
        ("cached_tokens", pa.int32()),
        ("output_tokens", pa.int32()),
        ("finish_reason", _WORD),
        ("status", _WORD),  # ok | error
        ("error", pa.string()),
        ("created_at", pa.timestamp("ms", tz="UTC")),
    ],
)

VERDICTS = _schema(
    "verdicts",
    1,
    [
        ("caption_id", pa.string()),
        ("shard", _WORD),
        ("key", pa.string()),
        ("keep", pa.bool_()),
        ("gadget", _WORD),  # the gadget that decided; null if none objected
        ("reason", _WORD),
        ("scores", pa.map_(pa.string(), pa.float32())),
        ("clean_text", pa.string()),  # null if the text is unchanged
        ("curation", _WORD),
    ],
)

BUNDLE_CAPTION = pa.struct(
    [
        ("caption_id", pa.string()),
        ("source", pa.string()),  # caption | sub | alt
        ("perspective", pa.string()),
        ("granularity", pa.string()),
        ("level", pa.string()),
        ("text", pa.string()),
        ("weight", pa.float32()),
        ("n_tokens", pa.int32()),
    ]
)

BUNDLES = _schema(
    "bundles",
    1,
    [
        ("shard", _WORD),
        ("key", pa.string()),
        ("image_id", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("captions", pa.list_(BUNDLE_CAPTION)),
        ("mean_similarity", pa.float32()),  # mean pairwise lexical similarity of the kept captions
        ("distinct_2", pa.float32()),
    ],
)

RESULTS = _schema(
    "results",
    2,
    [
        ("run", _WORD),
        ("model", _WORD),  # fingerprint of the model
        ("task", _WORD),  # retrieval, classification, ...
        ("dataset", _WORD),
        ("split", _WORD),
        ("protocol", _WORD),
        ("readout", _WORD),  # mean, branch:style, ...
        ("query", _WORD),  # perspective of the query; null where there is none
        ("metric", _WORD),
        ("value", pa.float64()),
        ("chance", pa.float64()),
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
    ],
)

DIFFERENCES = _schema(
    "differences",
    1,
    [
        *((name, _WORD) for name in ("run", "model", "other_run", "other_model", "task", "dataset", "split")),
        *((name, _WORD) for name in ("protocol", "readout", "query", "metric")),
        ("difference", pa.float64()),  # run minus other run, on the same resamples
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
        ("n", pa.int64()),
    ],
)


def table(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Make a table of row mappings; a column that no row names is null, one the schema lacks is an error."""
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise StoreError(f"rows of table {_name(schema)} have unknown columns {sorted(unknown)}")
    return pa.Table.from_pylist(list(rows), schema=schema)


def encode(data: pa.Table, schema: pa.Schema, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Encode a table as the bytes of one Parquet file."""
    if data.schema.names != schema.names:
        raise StoreError(f"table {_name(schema)} has columns {data.schema.names}, expected {schema.names}")
    merged = {**(schema.metadata or {}), **{k.encode(): v.encode() for k, v in (metadata or {}).items()}}
    return parquet(data.cast(schema).replace_schema_metadata(merged))


def parquet(data: pa.Table) -> bytes:
    """Any table as the bytes of one Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink, compression="zstd", row_group_size=65_536)
    return bytes(sink.getvalue().to_pybytes())


def read(
    location: Location,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    *,
    filters: Any = None,
    recorded: tuple[str, str] | None = None,
) -> pa.Table:
    """Read one Parquet part and check that it is the table, in the version, that was expected.

    `recorded` is the digest on the part's record and the stage that wrote it: other content is refused. Whoever has a
    manifest calls `Manifest.read`, which knows both.
    """
    with _unreadable_is_named(location, schema):
        data = _checked(location, schema, recorded)
        return pq.read_table(pa.BufferReader(data), columns=list(columns) if columns else None, filters=filters)


def batches(
    location: Location,
    schema: pa.Schema,
    columns: Sequence[str],
    rows: int,
    *,
    recorded: tuple[str, str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """As `read`, but so many rows at a time: of a large part no more is in memory than its file and those rows."""
    with _unreadable_is_named(location, schema):
        file = pq.ParquetFile(pa.BufferReader(_checked(location, schema, recorded)))
        yield from file.iter_batches(rows, columns=list(columns))


def _checked(location: Location, schema: pa.Schema, recorded: tuple[str, str] | None) -> pa.Buffer:
    """The file's bytes."""
    # Never through a Python file handle: pyarrow's threads may outlive the interpreter and end it by a signal.
    data = pa.OSFile(location.uri).read_buffer() if location.is_local else pa.py_buffer(location.read())
    if recorded is not None:
        contents.check(location, data, *recorded)
    _check(location, pq.read_schema(pa.BufferReader(data)), schema)
    return data


@contextmanager
def _unreadable_is_named(location: Location, schema: pa.Schema) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{location} cannot be read as a {_name(schema)} table: {error}") from error


def _check(location: Location, schema: pa.Schema, expected: pa.Schema) -> None:
    metadata = schema.metadata or {}
    actual = (metadata.get(b"holism.table"), metadata.get(b"holism.version"))
    wanted = (expected.metadata[b"holism.table"], expected.metadata[b"holism.version"])
    if actual != wanted:
        shown = " version ".join(part.decode() for part in actual if part) or "a Parquet file of another program"
        raise StoreError(f"{location} is {shown}, expected {_name(expected)} version {wanted[1].decode()}")


def _name(schema: pa.Schema) -> str:
    return str(schema.metadata[b"holism.table"].decode())
