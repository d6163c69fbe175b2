"""Benchmark folders: images, labels and queries, whatever they were made from.

    benchmark.yaml     name, split, relevance (how it was decided what a query is true for),
                       classification: {task: {classes: [...], templates: ["a photo of a {}", ...]}}
    labels.parquet     file, and one column per task (null where it cannot be told); lists every image
    queries.parquet    query_id, perspective, text, relevant (list of the files the text is true for)
    images/            the pictures

`benchmark_tables` says what the columns may hold.

Either part may be missing: without `classification` there is no zero-shot table, without `queries.parquet` no
retrieval. A query is a row: on a set in the usual form (five captions an image) each caption is one query whose
`relevant` holds its one image; where captions do not single out an image (a style, a background), a text should be
one row with all images it is true for. What is true for an image is true for its copies, which are files of the same
bytes: a data set that has an image twice must not call one of them wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import Field, field_validator

from evaluation import benchmark_tables as tables
from evaluation.benchmark_tables import Queries
from pipeline import identity, plain_yaml
from pipeline.config import Section, build
from pipeline.errors import InputError
from pipeline.storage import Location

SPEC, LABELS, QUERIES, IMAGES = "benchmark.yaml", "labels.parquet", "queries.parquet", "images"
READERS = 16  # threads that read pictures which may be copies


class Task(Section):
    """Zero-shot classification of one attribute: its classes and the sentences their names are put into."""

    classes: tuple[str, ...] = Field(min_length=2)
    templates: tuple[str, ...] = Field(("a photo of a {}",), min_length=1)

    @field_validator("classes", mode="before")
    @classmethod
    def _are_texts(cls, classes: object) -> object:
        if isinstance(classes, list) and (strange := [name for name in classes if not isinstance(name, str)]):
            raise ValueError(f"{strange[0]!r} is no text; write names of classes in quotes")
        return classes

    @field_validator("classes")
    @classmethod
    def _have_names(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name.strip() for name in classes):
            raise ValueError("a class has no name")
        return tuple(name.strip() for name in classes)

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

    name: str = Field(min_length=1)
    split: str = "test"
    relevance: str = ""
    classification: dict[str, Task] = Field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, read and checked."""

    folder: Location
    spec: Spec
    digest: str
    files: tuple[str, ...]
    labels: dict[str, np.ndarray]  # task: class index per image, -1 where it cannot be told
    queries: tuple[Queries, ...]  # one per perspective, in order of appearance
    copies: dict[int, int] = field(default_factory=dict)  # images that are copies: the first of the same bytes

    @property
    def name(self) -> str:
        return self.spec.name

    def image(self, index: int) -> Location:
        """Where a picture lies."""
        return self.folder / IMAGES / self.files[index]

    @property
    def original_N(self) -> np.ndarray:
        """For each image the first of the same bytes: itself, unless it is a copy."""
        return np.array([self.copies.get(image, image) for image in range(len(self.files))])


def check(folder: str | Location) -> str:
    """Read the tables of a benchmark folder, but no picture; returns the folder's identity.

    That is its tables by content and its pictures by name and size, wherever it lies. Raises `InputError` for whatever
    is missing or does not fit together.
    """
    return _read(Location.of(folder))[0].digest


def read(folder: str | Location) -> Benchmark:
    """Read a benchmark folder, and find the copies among its pictures. Raises `InputError` as `check` does."""
    benchmark, sizes = _read(Location.of(folder))
    found = replace(benchmark, copies=_copies(benchmark, sizes))
    return replace(found, queries=tuple(tables.with_copies(one, found.original_N) for one in found.queries))


def _read(root: Location) -> tuple[Benchmark, list[int]]:
    """The benchmark as its tables say, and the sizes of its pictures."""
    _require(root)
    spec = _read_spec(root / SPEC)
    prefix = (root / IMAGES).uri + "/"
    size = {file.uri.removeprefix(prefix): size for file, size in (root / IMAGES).files(recursive=True)}
    labels = tables.BenchmarkTable(root / LABELS, ["file", *spec.classification])
    files = tables.files(labels, list(size))
    indices = {name: tables.class_indices(labels, name, task.classes) for name, task in spec.classification.items()}
    queries = tables.queries(root / QUERIES, files) if (root / QUERIES).exists() else ()
    if not spec.classification and not queries:
        raise InputError(f"the benchmark {root} measures nothing: add classification to {SPEC}, or {QUERIES}")
    return Benchmark(root, spec, _digest(root, size), files, indices, queries), [size[name] for name in files]


def _digest(root: Location, size: dict[str, int]) -> str:
    present = [root / name for name in (SPEC, LABELS, QUERIES) if (root / name).exists()]
    content = {table.name: identity.digest(table.read()) for table in present}
    return identity.digest({"tables": content, "images": [[f"/{name}", number] for name, number in size.items()]})


def _copies(benchmark: Benchmark, sizes: Sequence[int]) -> dict[int, int]:
    """The images whose bytes are those of an earlier one, with that one. Only pictures of one size are compared."""
    times, first, copies = Counter(sizes), dict[str, int](), dict[int, int]()
    suspects = [index for index, size in enumerate(sizes) if times[size] > 1]
    with ThreadPoolExecutor(READERS) as pool:
        ids = pool.map(lambda index: identity.image_id(benchmark.image(index).read()), suspects)
        for index, image in zip(suspects, ids, strict=True):
            if (original := first.setdefault(image, index)) != index:
                copies[index] = original
    return copies


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
