"""Writes a benchmark as a benchmark folder (`evaluation.benchmark_folder`), whatever form it was read from."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from evaluation.benchmark_folder import CHOICES, IMAGES, LABELS, MASKS, QUERIES, SPEC, TRAIN, mask_name
from evaluation.benchmark_tables import COCO_ID
from evaluation.benchmarks import Benchmark
from evaluation.classes import Classes
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.storage import Location


def write(benchmark: Benchmark, folder: Location) -> None:
    """Write a benchmark in this form, pictures byte for byte. Raises `InputError` if the folder is not empty."""
    if next(folder.files(recursive=True), None) is not None:
        raise InputError(f"{folder} is not empty; name a new folder")
    _write_labelled(benchmark, folder)
    if benchmark.train is not None:
        _write_labelled(benchmark.train, folder / TRAIN)
    for name, mask in zip(benchmark.files, benchmark.masks, strict=False):
        _put(folder / MASKS / mask_name(name), mask.read())
    if benchmark.queries:
        _write_table(folder / QUERIES, list(_query_rows(benchmark)))
    if benchmark.choices:
        _write_table(folder / CHOICES, list(_choice_rows(benchmark)))
    spec = benchmark.spec.model_dump(mode="json", exclude_defaults=True)
    (folder / SPEC).write(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=110).encode())


def _write_labelled(benchmark: Benchmark, folder: Location) -> None:
    progress = Progress(f"pictures of {benchmark.name}", len(benchmark.files), "images")
    for name, picture in zip(benchmark.files, benchmark.pictures, strict=True):
        _put(folder / IMAGES / name, picture.read())
        progress.update(1)
    progress.close()
    _write_table(folder / LABELS, list(_label_rows(benchmark)))


def _put(location: Location, data: bytes) -> None:
    """Write a picture without waiting for the disk: until benchmark.yaml is there, the last, nobody reads it."""
    if not location.is_local:
        location.write(data)
        return
    path = Path(location.uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_table(location: Location, rows: list[dict[str, Any]]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer, compression="zstd")
    location.write(buffer.getvalue())


def _label_rows(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    described = benchmark.spec.classification
    columns = {task: _column(index_N, described[task]) for task, index_N in benchmark.labels.items()}
    for number, file in enumerate(benchmark.files):
        ids = {COCO_ID: benchmark.coco_ids[number]} if benchmark.coco_ids else {}
        yield {"file": file, **{task: column[number] for task, column in columns.items()}, **ids}


def _column(index_N: np.ndarray, described: Classes) -> list[Any]:
    """Names of classes; their numbers where a name occurs twice."""
    names = described.classes
    by_number = len(set(names)) < len(names)
    return [None if index < 0 else index if by_number else names[index] for index in index_N.tolist()]


def _query_rows(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    for queries in benchmark.queries:
        relevant: list[list[str]] = [[] for _ in queries.texts]
        for text, image in zip(queries.pair_text_P.tolist(), queries.pair_image_P.tolist(), strict=True):
            relevant[text].append(benchmark.files[image])
        for number, (text, files) in enumerate(zip(queries.texts, relevant, strict=True)):
            query = f"{queries.perspective}-{number:06d}"
            row = {"query_id": query, "perspective": queries.perspective, "text": text, "relevant": files}
            yield row | ({COCO_ID: queries.coco_ids[number]} if queries.coco_ids else {})


def _choice_rows(benchmark: Benchmark) -> Iterator[dict[str, Any]]:
    for choices in benchmark.choices:
        pairs = choices.pair_Q.tolist() if choices.pair_Q is not None else [None] * len(choices.right)
        for image, right, wrong, pair in zip(
            choices.image_Q.tolist(), choices.right, choices.wrong, pairs, strict=True
        ):
            texts = {"right": list(right), "wrong": list(wrong)}
            yield {"kind": choices.kind, "file": benchmark.files[image], **texts, "pair": pair}
