"""A sample of a benchmark asks of its images what the whole one asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import benchmarks
from evaluation.benchmarks import Benchmark
from evaluation.sampling import sampled


def truth(benchmark: Benchmark) -> set[tuple[str, str, str]]:
    """(perspective, text, file) for every pair of a query and an image that it is true for."""
    return {
        (queries.perspective, queries.texts[text], benchmark.files[image])
        for queries in benchmark.queries
        for text, image in zip(queries.pair_text_P, queries.pair_image_P, strict=True)
    }


def labels(benchmark: Benchmark) -> set[tuple[str, str, int]]:
    return {
        (task, benchmark.files[image], int(index))
        for task, index_N in benchmark.labels.items()
        for image, index in enumerate(index_N)
    }


@pytest.mark.parametrize("images", [2, 5, 11])
def test_what_is_true_of_the_drawn_images_stays_true(squares: Path, images: int) -> None:
    whole = benchmarks.read(str(squares))
    part = sampled(whole, images, seed=0)
    assert len(set(part.files)) == images
    assert truth(part) == {row for row in truth(whole) if row[2] in part.files}
    assert labels(part) == {row for row in labels(whole) if row[1] in part.files and row[0] in part.labels}
    asked = {text for queries in part.queries for text in queries.texts}
    assert asked == {text for _, text, _ in truth(part)}  # no query without a right answer
    again, other = sampled(whole, images, seed=0), sampled(whole, images, seed=1)
    assert part.files == again.files != other.files
    assert sampled(whole, None, 0) is sampled(whole, 12, 0) is whole


def test_copies_stay_copies(squares: Path) -> None:
    first = squares / "images" / "0-red-small.png"
    for name in ("0-blue-large.png", "1-green-large.png"):
        (squares / "images" / name).write_bytes(first.read_bytes())
    whole = benchmarks.read(str(squares))
    alike = {whole.files[image] for image in {*whole.copies, *whole.copies.values()}}
    assert len(alike) == 3
    for seed in range(8):
        part = sampled(whole, 6, seed)
        groups = [{part.files[i] for i in np.flatnonzero(part.original_N == k)} for k in np.unique(part.original_N)]
        drawn = alike & set(part.files)
        assert not drawn or drawn in groups
        assert all(first < image and first not in part.copies for image, first in part.copies.items())


def test_a_task_that_no_drawn_image_tells_of_is_left_out(
    squares: Path, rewrite: Callable[[Path, Callable[[list[dict[str, Any]]], Any]], None]
) -> None:
    rewrite(squares / "labels.parquet", lambda rows: [row.update(size=None) for row in rows[1:]])
    rewrite(squares / "labels.parquet", lambda rows: rows[0].update(size="large"))
    whole = benchmarks.read(str(squares))
    parts = [sampled(whole, 3, seed) for seed in range(8)]
    assert {"size" in part.labels for part in parts} == {True, False}
    assert all(("size" in part.labels) == (whole.files[0] in part.files) for part in parts)
