"""Benchmark folders, our own form: tables beside the pictures.

    benchmark.yaml     name, split, relevance (how it was decided what a query is true for),
                       classification: {task: {classes: [...], templates: ["a photo of a {}", ...]}},
                       segmentation: {task: {classes: [...], first: 1, ...}} (`evaluation.regions`)
    labels.parquet     file, and one column per task (null where it cannot be told); lists every image.
                       Here and in queries.parquet coco_id, which may be left out: COCO's number of it
    queries.parquet    query_id, perspective, text, relevant (list of the files the text is true for)
    choices.parquet    kind, file, right and wrong (lists of texts), pair (a number that two questions share, or null)
    images/            the pictures
    masks/             for segmentation a label mask of each picture, under its name as PNG
    train/             labels.parquet and images/ of pictures that probes are fitted on

`benchmark_tables` says what the columns may hold. Without `classification` there is no zero-shot table, without
`queries.parquet` no retrieval, without `choices.parquet` no composition, without `segmentation` nothing is asked about
regions. A query is a row: on a set in the usual form
(five captions an image) each caption is one query whose `relevant` holds its one image; where captions do not single
out an image (a style, a background), a text should be one row with all images it is true for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from evaluation import benchmark_tables as tables
from evaluation.contents import ALL_CAPTIONS, Contents, MissingDataError, Queries, Spec
from evaluation.names import match
from pipeline import identity, plain_yaml
from pipeline.config import build
from pipeline.errors import InputError
from pipeline.storage import Location

SPEC, LABELS, QUERIES, CHOICES = "benchmark.yaml", "labels.parquet", "queries.parquet", "choices.parquet"
IMAGES, MASKS, TRAIN = "images", "masks", "train"


@dataclass(frozen=True)
class Folder:
    """What a benchmark folder holds; `digest` is its tables by content and its pictures by name and size."""

    spec: Spec
    digest: str
    contents: Contents
    queries: tuple[Queries, ...]
    train: Contents | None = None


def read(root: Location) -> Folder:
    """Read the tables of a folder, but no picture. Raises `InputError` for whatever does not fit together."""
    _require(root)
    spec = _read_spec(root / SPEC)
    contents, size = _labelled(root, spec)
    files = contents.files
    queries = tables.queries(root / QUERIES, files, spec.protocols) if (root / QUERIES).exists() else ()
    choices = tables.choices(root / CHOICES, files) if (root / CHOICES).exists() else ()
    train = _labelled(root / TRAIN, spec)[0] if (root / TRAIN / LABELS).exists() else None
    if not spec.classification and not queries and not choices and not spec.segmentation:
        raise InputError(
            f"the benchmark {root} measures nothing: add classification or segmentation to {SPEC}, {QUERIES} or "
            f"{CHOICES}"
        )
    masks, sizes = _masks(root, files) if spec.segmentation else ((), ())
    contents = replace(contents, choices=choices, segmentation=spec.segmentation, masks=masks, mask_sizes=tuple(sizes))
    digest = _digest(root, size, dict(zip(masks, sizes, strict=True)))
    return Folder(spec, with_train(digest, train), contents, queries, train)


def mask_name(file: str) -> str:
    """What the mask of a picture is called."""
    return PurePosixPath(file).with_suffix(".png").as_posix()


def _masks(root: Location, files: Sequence[str]) -> tuple[tuple[Location, ...], list[int]]:
    """The masks of these pictures, and their sizes in bytes."""
    prefix = (root / MASKS).uri + "/"
    size = {file.uri.removeprefix(prefix): size for file, size in (root / MASKS).files(recursive=True)}
    place, masks = root / MASKS, match([mask_name(file) for file in files], list(size))
    if masks.absent:
        raise MissingDataError(
            f"{len(masks.absent)} of {len(files)} masks of {place} are missing, the first is {masks.absent[0]!r}"
        )
    if masks.repeated:
        raise InputError(f"the mask {masks.repeated[0]!r} of {place} is that of two pictures; rename one of them")
    return tuple(place / name for name in masks.found), [size[name] for name in masks.found]


def _labelled(root: Location, spec: Spec) -> tuple[Contents, dict[str, int]]:
    """The pictures of a folder with their labels, and the sizes of all that lie there."""
    prefix = (root / IMAGES).uri + "/"
    size = {file.uri.removeprefix(prefix): size for file, size in (root / IMAGES).files(recursive=True)}
    labels = tables.BenchmarkTable(root / LABELS, ["file", *spec.classification], [tables.COCO_ID])
    files = tables.files(labels, list(size))
    indices = {name: tables.class_indices(labels, name, task.classes) for name, task in spec.classification.items()}
    pictures = tuple(root / IMAGES / name for name in files)
    sizes = tuple(size[name] for name in files)
    ids = tables.coco_ids(labels)
    return Contents(files, pictures, sizes, spec.classification, indices, coco_ids=ids), size


def with_train(digest: str, train: Contents | None) -> str:
    """The identity of a benchmark with its training split; without one, what it was."""
    if train is None:
        return digest
    images = [[name, size] for name, size in zip(train.files, train.sizes, strict=True)]
    labels = {task: index_N.tolist() for task, index_N in train.labels.items()}
    return identity.digest({"test": digest, "images": images, "labels": labels})


def _digest(root: Location, size: dict[str, int], masks: dict[Location, int]) -> str:
    present = [root / name for name in (SPEC, LABELS, QUERIES, CHOICES) if (root / name).exists()]
    content = {table.name: identity.digest(table.read()) for table in present}
    images = [[f"/{name}", number] for name, number in size.items()]
    told = {"masks": [[mask.name, number] for mask, number in masks.items()]} if masks else {}
    return identity.digest({"tables": content, "images": images, **told})


def _require(root: Location) -> None:
    if not root.is_dir():
        raise MissingDataError(f"there is no benchmark folder {root}; correct evaluate.benchmarks or create it")
    for name in (SPEC, LABELS, IMAGES):
        if not (root / name).exists():
            raise MissingDataError(f"{root} is not a benchmark folder: {name} is missing (see docs/evaluation.md)")


def _read_spec(location: Location) -> Spec:
    data = plain_yaml.parse(location.read(), str(location))
    if not isinstance(data, dict):
        raise InputError(f"{location} holds a {type(data).__name__}, expected a mapping with at least a name")
    return build(Spec, data, source=str(location))


def protocols(queries: tuple[Queries, ...]) -> dict[str, str]:
    """For benchmark.yaml: the perspectives of which not all texts are asked."""
    return {one.perspective: one.protocol for one in queries if one.protocol != ALL_CAPTIONS}
