"""Benchmarks: pictures with labels, queries and choices to be measured on, whatever they were made from.

An entry of `evaluate.benchmarks` is a folder in our own form (`benchmark_folder`), the name of a suite with the folder
that its files lie in, or the YAML file of a suite (`evaluation.suites`). What is true for an image is true for its
copies, which are files of the same bytes: a data set that has an image twice must not call one of them wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from os import PathLike

import numpy as np

from evaluation import benchmark_folder, coco_positives, fetching, suites
from evaluation import benchmark_tables as tables
from evaluation.benchmark_folder import Folder
from evaluation.config import SuiteAt
from evaluation.contents import Choices, Contents, Crop, MissingDataError, Picture, Queries, Spec, caption_queries
from evaluation.suites import Suite
from pipeline import identity
from pipeline.config import semantic
from pipeline.errors import InputError
from pipeline.storage import Location

READERS = 16  # threads that read pictures which may be copies
MISSING = "missing"  # stands for the identity of a benchmark whose files are not there
Entry = str | PathLike[str] | Location | SuiteAt


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, read and checked."""

    spec: Spec
    digest: str
    files: tuple[str, ...]  # names of the pictures
    pictures: tuple[Picture, ...]
    labels: Mapping[str, np.ndarray]  # task: class index per image, -1 where it cannot be told
    queries: tuple[Queries, ...]  # one per perspective, in order of appearance
    choices: tuple[Choices, ...] = ()
    copies: dict[int, int] = field(default_factory=dict)  # images that are copies: the first of the same bytes
    train: Benchmark | None = None  # images with labels that probes are fitted on, and nothing else
    masks: tuple[Picture, ...] = ()  # of what is in each picture, where `spec.segmentation` asks about it
    coco_ids: tuple[int, ...] = ()  # of each picture, where all are COCO's
    shown: str = ""  # digest of the pictures alone, by name and size: features of them hold whatever is asked

    @property
    def name(self) -> str:
        return self.spec.name

    def image(self, index: int) -> Picture:
        """Where a picture lies."""
        return self.pictures[index]

    @property
    def original_N(self) -> np.ndarray:
        """For each image the first of the same bytes: itself, unless it is a copy."""
        return np.array([self.copies.get(image, image) for image in range(len(self.files))])


def check(entry: Entry) -> str:
    """Read the tables of a benchmark, but no picture; returns its identity.

    That is its tables by content and its pictures by name and size, wherever they lie. Raises `InputError` for
    whatever does not fit together, and `MissingDataError` for what is not there.
    """
    return _read(entry)[0].digest


def check_all(entries: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """The identities of benchmarks, and a sentence for each whose files are missing.

    The others go on without those. Raises `InputError` as `check` does, where all are missing, and where two have one
    name: results are told apart by it.
    """
    found, names, lacking = list[str](), list[str](), list[MissingDataError]()
    for entry in entries:
        try:
            benchmark, _ = _read(entry)
        except MissingDataError as error:
            found.append(MISSING)
            lacking.append(error)
            continue
        found.append(benchmark.digest)
        names.append(benchmark.name)
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two benchmarks are called {sorted(repeated)[0]!r}; give each its own name")
    if lacking and len(lacking) == len(entries):
        raise lacking[0]
    return found, [f"{error}; the other benchmarks are measured without it" for error in lacking]


def read(entry: Entry) -> Benchmark:
    """Read a benchmark, and find the copies among its pictures. Raises `InputError` as `check` does."""
    benchmark, sizes = _read(entry)
    found = replace(benchmark, copies=_copies(benchmark, sizes))
    return replace(found, queries=tuple(tables.with_copies(one, found.original_N) for one in found.queries))


def read_all(entries: Sequence[Entry]) -> list[Benchmark]:
    """Read the benchmarks whose files are there. Raises `InputError` as `check_all` does."""
    identities, _ = check_all(entries)
    return [read(entry) for entry, digest in zip(entries, identities, strict=True) if digest != MISSING]


def of_suite(suite: Suite, root: Location) -> tuple[Benchmark, tuple[int, ...]]:
    """The benchmark of a suite whose files lie in a folder, and the sizes of its pictures."""
    if not root.is_dir():
        raise MissingDataError(f"the suite {suite.name} expects its files in {root}, and there is no such folder")
    try:
        contents = suite.layout.read(root, suite.split)
    except InputError as error:
        had = (
            f"; its files are had from {suite.source}" if suite.source and isinstance(error, MissingDataError) else ""
        )
        raise type(error)(f"the suite {suite.name}: {error}{had}") from error
    queries = tuple(
        caption_queries(contents.captions, protocol, contents.caption_ids)
        for protocol in suite.captions
        if contents.captions
    )
    spec = Spec(
        name=suite.name,
        split=suite.split,
        relevance=suite.relevance,
        classification=dict(contents.classification),
        segmentation=dict(contents.segmentation),
        protocols=benchmark_folder.protocols(queries),
    )
    train = suite.layout.read(root, suite.train) if suite.train else None
    digest = benchmark_folder.with_train(_digest(spec, contents, queries), train)
    return _benchmark(Folder(spec, digest, contents, queries, train))


def _read(entry: Entry) -> tuple[Benchmark, tuple[int, ...]]:
    """The benchmark as its tables say, and the sizes of its pictures."""
    at = entry if isinstance(entry, SuiteAt) else _suite_of(entry)
    if not isinstance(at, SuiteAt):
        return _benchmark(benchmark_folder.read(at))
    if at.suite in fetching.NAMES:
        return _fetched(at)
    suite, root = suites.find(at.suite)
    if at.name is not None:
        suite = suite.model_copy(update={"name": at.name})
    if at.images is not None:
        if "images" not in type(suite.layout).model_fields:
            raise InputError(f"the suite {at.suite} has its pictures in tars; leave out `images`")
        suite = suite.model_copy(update={"layout": suite.layout.model_copy(update={"images": (at.images,)})})
    return of_suite(suite, _root(suite, Location.of(at.root) if at.root else root))


def _suite_of(entry: str | PathLike[str] | Location) -> SuiteAt | Location:
    """The suite that an entry names, alone or as NAME=FOLDER, or the folder that it is."""
    if not isinstance(entry, str):
        return Location.of(entry)
    if entry.endswith(suites.YAML) or (
        entry in (*suites.names(), *fetching.NAMES) and not Location.of(entry).is_dir()
    ):
        return SuiteAt(suite=entry)
    if "=" in entry and not Location.of(entry).exists():
        name, _, root = entry.partition("=")
        return SuiteAt(suite=name, root=root)
    return Location.of(entry)


def _fetched(entry: SuiteAt) -> tuple[Benchmark, tuple[int, ...]]:
    """A suite of package registries, which is a benchmark folder."""
    if entry.images is not None:
        raise InputError(f"the suite {entry.suite} has its pictures with its other files; leave out `images`")
    place = Location.of(entry.root) if entry.root else fetching.cached(entry.suite)
    if not place.is_dir():
        raise MissingDataError(f"the suite {entry.suite} is not in {place}; get it with: holism fetch {entry.suite}")
    found = benchmark_folder.read(place)
    if entry.name is not None:
        spec = found.spec.model_copy(update={"name": entry.name})
        found = replace(found, spec=spec, digest=identity.digest([found.digest, entry.name]))
    return _benchmark(found)


def _root(suite: Suite, root: Location | None) -> Location:
    if root is None:
        raise MissingDataError(f"the suite {suite.name} does not know where its files lie; write {suite.name}=FOLDER")
    return root


def _benchmark(found: Folder) -> tuple[Benchmark, tuple[int, ...]]:
    contents = found.contents
    benchmark = Benchmark(
        found.spec,
        coco_positives.identity_with(found.digest, contents.coco_ids),
        contents.files,
        contents.pictures,
        contents.labels,
        found.queries,
        contents.choices,
        train=_train(found),
        masks=contents.masks,
        coco_ids=contents.coco_ids,
        shown=_shown(found.spec, contents),
    )
    return benchmark, contents.sizes


def _train(found: Folder) -> Benchmark | None:
    if found.train is None:
        return None
    train, spec = found.train, found.spec.model_copy(update={"split": "train"})
    if dict(train.classification) != spec.classification:
        raise InputError(f"the training split of {spec.name} has other classes than its {found.spec.split} split")
    shown = _shown(spec, train)
    return Benchmark(spec, _digest(spec, train, ()), train.files, train.pictures, train.labels, (), shown=shown)


def _shown(spec: Spec, contents: Contents) -> str:
    images = [[name, size] for name, size in zip(contents.files, contents.sizes, strict=True)]
    return identity.digest([spec.name, spec.split, images])


def _digest(spec: Spec, contents: Contents, queries: Sequence[Queries]) -> str:
    """What is asked, of which pictures by name and size, wherever they lie."""
    masks = {"masks": list(contents.mask_sizes)} if contents.masks else {}
    return identity.digest(
        {
            "spec": semantic(spec),
            "images": [[name, size] for name, size in zip(contents.files, contents.sizes, strict=True)],
            "labels": {task: index_N.tolist() for task, index_N in contents.labels.items()},
            "queries": [[one.perspective, list(one.texts), one.pair_image_P.tolist()] for one in queries],
            "choices": [
                [one.kind, one.image_Q.tolist(), semantic(one.right), semantic(one.wrong)] for one in contents.choices
            ],
            **masks,
        }
    )


def _copies(benchmark: Benchmark, sizes: Sequence[int]) -> dict[int, int]:
    """The images whose bytes are those of an earlier one, with that one. Only pictures of one size are compared.

    Parts of pictures are no copies: those of one place have one name.
    """
    times, first, copies = Counter(sizes), dict[str, int](), dict[int, int]()
    suspects = [
        index for index, size in enumerate(sizes) if times[size] > 1 and not isinstance(benchmark.image(index), Crop)
    ]
    with ThreadPoolExecutor(READERS) as pool:
        ids = pool.map(lambda index: identity.image_id(benchmark.image(index).read()), suspects)
        for index, image in zip(suspects, ids, strict=True):
            if (original := first.setdefault(image, index)) != index:
                copies[index] = original
    return copies
