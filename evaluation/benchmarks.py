"""Benchmark folders: images, labels and queries, whatever they were made from.

    benchmark.yaml     name, split, relevance (how it was decided what a query is true for),
                       classification: {task: {classes: [...], templates: ["a photo of a {}", ...]}}
    labels.parquet     file, and one column per task (class name; null where it cannot be told); lists every image
    queries.parquet    query_id, perspective, text, relevant (list of the files the text is true for)
    images/            the pictures

Either part may be missing: without `classification` there is no zero-shot table, without `queries.parquet` no
retrieval. A query is a row: on a set in the usual form (five captions an image) each caption is one query whose
`relevant` holds its one image; where captions do not single out an image (a style, a background), a text should be
one row with all images it is true for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, field_validator

from pipeline import identity, plain_yaml
from pipeline.config import Section, build
from pipeline.errors import InputError
from pipeline.storage import Location

SPEC, LABELS, QUERIES, IMAGES = "benchmark.yaml", "labels.parquet", "queries.parquet", "images"


class Task(Section):
    """Zero-shot classification of one attribute: its classes and the sentences their names are put into."""

    classes: tuple[str, ...] = Field(min_length=2)
    templates: tuple[str, ...] = Field(("a photo of a {}",), min_length=1)

    @field_validator("templates")
    @classmethod
    def _have_a_hole(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        if without := [template for template in templates if "{}" not in template]:
            raise ValueError(f"template {without[0]!r} has no {{}} for the class name")
        return templates

    def prompts(self) -> list[list[str]]:
        """For each class its name in every template."""
        return [[template.replace("{}", name) for template in self.templates] for name in self.classes]


class Spec(Section):
    """What benchmark.yaml holds."""

    name: str
    split: str = "test"
    relevance: str = ""
    classification: dict[str, Task] = Field(default_factory=dict)


@dataclass(frozen=True)
class Queries:
    """Texts of one perspective and, as (text, image) index pairs, the images they are true for."""

    perspective: str
    texts: tuple[str, ...]
    pair_text_P: np.ndarray
    pair_image_P: np.ndarray


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, read and checked."""

    folder: Location
    spec: Spec
    digest: str
    files: tuple[str, ...]
    labels: dict[str, np.ndarray]  # task: class index per image, -1 where it cannot be told
    queries: tuple[Queries, ...]  # one per perspective, in order of appearance

    @property
    def name(self) -> str:
        return self.spec.name

    def image(self, index: int) -> Location:
        """Where a picture lies."""
        return self.folder / IMAGES / self.files[index]

    @cached_property
    def texts(self) -> list[str]:
        """Every text this benchmark shows a model, each once."""
        prompts = [text for task in self.spec.classification.values() for names in task.prompts() for text in names]
        return list(dict.fromkeys([text for queries in self.queries for text in queries.texts] + prompts))


def content_digest(folder: str | Location) -> str:
    """Identity of a benchmark: its tables by content, its pictures by name and size, wherever it lies."""
    root = Location.of(folder)
    _require(root)
    present = [root / name for name in (SPEC, LABELS, QUERIES) if (root / name).exists()]
    tables = {table.name: identity.digest(table.read()) for table in present}
    prefix = (root / IMAGES).uri
    pictures = [[file.uri.removeprefix(prefix), size] for file, size in (root / IMAGES).files(recursive=True)]
    return identity.digest({"tables": tables, "images": pictures})


def read(folder: str | Location) -> Benchmark:
    """Read a benchmark folder. Raises `InputError` for whatever is missing or does not fit together."""
    root = Location.of(folder)
    _require(root)
    spec = _read_spec(root / SPEC)
    labels = _read_table(root / LABELS, {"file", *spec.classification})
    files = tuple(labels["file"].to_pylist())
    _check_files(root, files)
    queries = _read_queries(root / QUERIES, files) if (root / QUERIES).exists() else ()
    if not spec.classification and not queries:
        raise InputError(f"the benchmark {root} measures nothing: add classification to {SPEC}, or {QUERIES}")
    indices = {name: _class_indices(root, name, task, labels[name]) for name, task in spec.classification.items()}
    return Benchmark(root, spec, content_digest(root), files, indices, queries)


def read_all(folders: Sequence[str]) -> list[Benchmark]:
    """Read several benchmarks; results are told apart by name, so names must differ."""
    benchmarks = [read(folder) for folder in folders]
    names = [benchmark.name for benchmark in benchmarks]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two benchmarks are called {sorted(repeated)[0]!r}; give each its own name in {SPEC}")
    return benchmarks


def _require(root: Location) -> None:
    if not root.is_dir():
        raise InputError(f"there is no benchmark folder {root}; correct evaluate.benchmarks or create it")
    for name in (SPEC, LABELS, IMAGES):
        if not (root / name).exists():
            raise InputError(f"{root} is not a benchmark folder: {name} is missing (see docs/architecture.md)")


def _read_spec(location: Location) -> Spec:
    data = plain_yaml.parse(location.read(), str(location))
    if not isinstance(data, dict):
        raise InputError(f"{location} holds a {type(data).__name__}, expected a mapping with at least a name")
    return build(Spec, data, source=str(location))


def _read_table(location: Location, columns: set[str]) -> pa.Table:
    try:
        with location.open_arrow() as handle:
            table = pq.read_table(handle)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{location} cannot be read as Parquet: {error}") from error
    if missing := sorted(columns - set(table.column_names)):
        raise InputError(f"{location} has columns {table.column_names}, but {', '.join(missing)} is missing")
    return table


def _check_files(root: Location, files: tuple[str, ...]) -> None:
    if not files:
        raise InputError(f"{root / LABELS} lists no images")
    if len(set(files)) < len(files):
        repeated = next(file for file in files if files.count(file) > 1)
        raise InputError(f"{root / LABELS} lists {repeated!r} more than once; one row per image is expected")
    prefix = (root / IMAGES).uri + "/"
    present = {file.uri.removeprefix(prefix) for file, _ in (root / IMAGES).files(recursive=True)}
    if absent := [file for file in files if file not in present]:
        raise InputError(f"{len(absent)} of {len(files)} images of {root} are missing, the first is {absent[0]!r}")


def _class_indices(root: Location, name: str, task: Task, column: pa.ChunkedArray) -> np.ndarray:
    index: dict[str | None, int] = {None: -1, **{label: i for i, label in enumerate(task.classes)}}
    labels = column.to_pylist()
    if unknown := sorted({str(label) for label in labels if label not in index}):
        raise InputError(f"{root / LABELS}: {unknown[0]!r} is no class of task {name!r} in {SPEC}")
    found = np.array([index[label] for label in labels], dtype=np.int64)
    if (found < 0).all():
        raise InputError(f"{root / LABELS}: no image has a label for task {name!r}")
    return found


def _read_queries(location: Location, files: tuple[str, ...]) -> tuple[Queries, ...]:
    table = _read_table(location, {"query_id", "perspective", "text", "relevant"})
    ids = table["query_id"].to_pylist()
    if len(set(ids)) < len(ids):
        raise InputError(f"{location}: {len(ids) - len(set(ids))} query_id values occur more than once")
    image = {file: i for i, file in enumerate(files)}
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        if not row["text"] or not row["relevant"]:
            raise InputError(f"{location}: query {row['query_id']!r} has no text, or no image it is true for")
        if strange := [file for file in row["relevant"] if file not in image]:
            raise InputError(f"{location}: query {row['query_id']!r} names {strange[0]!r}, which is not in {LABELS}")
        grouped.setdefault(row["perspective"], []).append(row)
    return tuple(_queries(perspective, rows, image) for perspective, rows in grouped.items())


def _queries(perspective: str, rows: list[dict[str, Any]], image: dict[str, int]) -> Queries:
    relevant = [sorted({image[file] for file in row["relevant"]}) for row in rows]
    return Queries(
        perspective,
        tuple(row["text"] for row in rows),
        np.repeat(np.arange(len(rows)), [len(found) for found in relevant]),
        np.concatenate([np.array(found, dtype=np.int64) for found in relevant]),
    )
