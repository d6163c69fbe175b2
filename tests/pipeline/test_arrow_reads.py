"""pyarrow reads no local file through a handle of Python's: its threads call back into it and can end the process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.curate.measures.store import MeasureStore
from captioning.rounds import ImageList
from evaluation import benchmarks
from pipeline.demo_world.write import write_world
from pipeline.ingest.tables import read_table
from pipeline.storage import Location


@pytest.fixture(autouse=True)
def no_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(self: Location, mode: str = "rb") -> None:
        raise AssertionError(f"{self} was opened as a handle of Python's")

    monkeypatch.setattr(Location, "open", handle)


def test_parquet_of_others_and_of_ours(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "a.parquet")
    assert list(read_table(Location.of(tmp_path / "a.parquet"), {"url_column": "url"})) == [("x",)]
    images = ImageList.write(Location.of(tmp_path), ["one"])
    assert "one" in images
    for _ in range(2):  # computed, then read
        store = MeasureStore(Location.of(tmp_path), "score", "d" * 12, 1)
        assert store.values("0", ["one"], lambda _: np.ones((1, 1), np.float32)).tolist() == [[1.0]]
    write_world(tmp_path / "world", 1, 4, seed=5)
    assert len(benchmarks.read(str(tmp_path / "world" / "heldout")).files) == 4
