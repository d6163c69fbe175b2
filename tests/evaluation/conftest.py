"""A benchmark of coloured squares and a tiny model, small enough to measure in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 210)}
SIZES = {"small": 8, "large": 24}
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write_squares(folder: Path, **spec: Any) -> Path:
    """Every colour in every size, twice; queries by colour and by picture."""
    (folder / "images").mkdir(parents=True)
    labels: list[dict[str, Any]] = []
    for copy in range(2):
        for colour, paint in COLOURS.items():
            for size, side in SIZES.items():
                image = Image.new("RGB", (32, 32), (250, 250, 250))
                image.paste(paint, (4 + copy, 4, 4 + copy + side, 4 + side))
                image.save(folder / "images" / f"{copy}-{colour}-{size}.png")
                labels.append({"file": f"{copy}-{colour}-{size}.png", "colour": colour, "size": size})
    labels[0]["size"] = None
    queries = [
        {"query_id": f"c{name}", "perspective": "colour", "text": f"something {name}",
         "relevant": [row["file"] for row in labels if row["colour"] == name]}
        for name in COLOURS
    ] + [
        {"query_id": row["file"], "perspective": "detail", "text": f"square {i} that is {row['colour']}",
         "relevant": [row["file"]]}
        for i, row in enumerate(labels)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(labels), folder / "labels.parquet")
    pq.write_table(pa.Table.from_pylist(queries), folder / "queries.parquet")
    tasks = {
        "colour": {"classes": list(COLOURS), "templates": ["a {} square", "{}"]},
        "size": {"classes": list(SIZES)},
    }
    data = {"name": "squares", "relevance": "By construction.", "classification": tasks, **spec}
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(data))
    return folder


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    return write_squares(tmp_path / "squares")


@pytest.fixture
def rewrite() -> Callable[[Path, Callable[[list[dict[str, Any]]], Any]], None]:
    """Edit the rows of a Parquet table in place."""

    def edit(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        rows = pq.read_table(path).to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows), path)

    return edit
