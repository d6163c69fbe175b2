"""Tables: what is written comes back, other programs read it, and other tables are refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoreError
from pipeline.schemas import BUNDLES, CAPTIONS, IMAGES, RESULTS, VERDICTS, encode, read, table
from pipeline.storage import Location

ALL = [IMAGES, CAPTIONS, VERDICTS, BUNDLES, RESULTS]
ROWS: dict[str, list[dict[str, Any]]] = {
    "images": [
        {"shard": "0", "key": "a", "image_id": "i", "offset": 512, "size": 3, "status": "ok", "alt_text": 'ä, "b"\n'},
        {"shard": "0", "key": "b", "status": "error", "error": "truncated"},
    ],
    "captions": [
        {
            "caption_id": "c",
            "text": "x",
            "paraphrase": 1,
            "seed": 2**40,
            "created_at": datetime(2026, 1, 2, tzinfo=UTC),
        },
        {"caption_id": "d", "status": "error", "error": "no"},
    ],
    "verdicts": [{"caption_id": "c", "keep": True, "scores": [("clip", 0.5), ("length", 3.0)]}, {"caption_id": "d"}],
    "bundles": [
        {"shard": "0", "key": "a", "captions": [{"caption_id": "c", "text": "x", "weight": 1.0, "n_tokens": 4}]},
        {"shard": "0", "key": "b", "captions": []},
    ],
    "results": [{"run": "r", "metric": "r@1", "value": 0.25, "n": 10}],
}


def name_of(schema: pa.Schema) -> str:
    return str(schema.metadata[b"holism.table"].decode())


@pytest.fixture(params=ALL, ids=name_of)
def schema(request: pytest.FixtureRequest) -> pa.Schema:
    return request.param


def write(path: Path, schema: pa.Schema) -> Location:
    location = Location.of(path)
    location.write(encode(table(schema, ROWS[name_of(schema)]), schema, metadata={"tokenizer": "clip"}))
    return location


def test_rows_come_back_as_they_were(tmp_path: Path, schema: pa.Schema) -> None:
    back = read(write(tmp_path / "x.parquet", schema), schema).to_pylist()
    for row, expected in zip(back, ROWS[name_of(schema)], strict=True):
        assert set(row) == set(schema.names)
        for column, value in row.items():
            wanted = expected.get(column)
            if column == "captions" and wanted:
                assert {key: value[0][key] for key in wanted[0]} == wanted[0]
            else:
                assert value == wanted


def test_other_programs_open_the_files_as_they_are(tmp_path: Path, schema: pa.Schema) -> None:
    path = write(tmp_path / "x.parquet", schema).uri
    count = len(ROWS[name_of(schema)])
    shown = duckdb.sql(f"select * from '{path}'")
    assert shown.columns == schema.names
    assert len(shown.fetchall()) == count
    frame = pd.read_parquet(path)
    assert list(frame.columns) == schema.names
    assert len(frame) == count
    assert ds.dataset(tmp_path, format="parquet").to_table().num_rows == count


def test_files_are_compressed_and_say_what_they_are(tmp_path: Path, schema: pa.Schema) -> None:
    file = pq.ParquetFile(write(tmp_path / "x.parquet", schema).uri)
    assert {file.metadata.row_group(0).column(i).compression for i in range(file.metadata.num_columns)} == {"ZSTD"}
    metadata = file.schema_arrow.metadata
    assert (metadata[b"holism.table"].decode(), metadata[b"tokenizer"]) == (name_of(schema), b"clip")


def test_columns_and_filters_select(tmp_path: Path) -> None:
    location = write(tmp_path / "x.parquet", IMAGES)
    assert read(location, IMAGES, ["key"]).to_pydict() == {"key": ["a", "b"]}
    assert read(location, IMAGES, ["key"], filters=[("status", "=", "ok")]).to_pydict() == {"key": ["a"]}


def test_equal_rows_are_equal_bytes(schema: pa.Schema) -> None:
    rows = ROWS[name_of(schema)]
    assert encode(table(schema, rows), schema) == encode(table(schema, [dict(row) for row in rows]), schema)


def test_another_table_or_version_is_named(tmp_path: Path) -> None:
    location = write(tmp_path / "x.parquet", IMAGES)
    with pytest.raises(StoreError, match=r"x.parquet is images version 1, expected captions version 1"):
        read(location, CAPTIONS)
    newer = IMAGES.with_metadata({"holism.table": "images", "holism.version": "2"})
    with pytest.raises(StoreError, match=r"x.parquet is images version 1, expected images version 2"):
        read(location, newer)
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "foreign.parquet")
    with pytest.raises(StoreError, match=r"foreign.parquet is a Parquet file of another program"):
        read(Location.of(tmp_path / "foreign.parquet"), IMAGES)


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_named(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    location = write(tmp_path_factory.mktemp("cut") / "x.parquet", IMAGES)
    data = location.read()
    location.write(data[: int(share * len(data))])
    with pytest.raises(StoreError, match=r"x.parquet cannot be read as a images table"):
        read(location, IMAGES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone.parquet cannot be read"):
        read(Location.of(tmp_path / "gone.parquet"), IMAGES)


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(StoreError, match=r"rows of table images have unknown columns \['heigth'\]"):
        table(IMAGES, [{"key": "a"}, {"heigth": 3}])
    with pytest.raises(StoreError, match="table images has columns"):
        encode(pa.table({"key": ["a"]}), IMAGES)


def test_a_table_without_rows(schema: pa.Schema, tmp_path: Path) -> None:
    location = Location.of(tmp_path / "x.parquet")
    location.write(encode(table(schema, []), schema))
    assert read(location, schema).num_rows == 0
