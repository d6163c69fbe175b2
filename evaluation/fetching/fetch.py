"""Gets a suite's packages, makes a benchmark folder of them, and leaves it in the cache in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluation import benchmark_writer
from evaluation.benchmarks import Benchmark
from evaluation.contents import Queries, Spec
from evaluation.fetching import NAMES, cached
from evaluation.fetching.packages import Package
from pipeline.errors import ConfigError
from pipeline.storage import Location


class Fetched(Protocol):
    """What a module of this folder says of its suite."""

    ABOUT: str
    PACKAGES: Sequence[Package]

    def build(self, folders: Sequence[Path], work: Path) -> Benchmark:
        """The benchmark in the unpacked packages; pictures that have to be made go below `work`."""


def known(name: str) -> Any:
    """The module of a suite that can be fetched. Raises `ConfigError` if there is none."""
    if name not in NAMES:
        raise ConfigError(f"there is no suite {name!r} to fetch; there are {', '.join(NAMES)}")
    return import_module(f"evaluation.fetching.{name}")


def licences(name: str) -> str:
    """The packages of a suite with their licences, in words."""
    return ", ".join(f"{package.name} ({package.licence})" for package in known(name).PACKAGES)


def fetch(name: str) -> Location:
    """Get a suite into the cache, unless it is there; returns its folder. Raises `CannotFetchError`."""
    suite, place = known(name), cached(name)
    if place.exists():
        return place
    parent = Path(place.parent.uri)
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}-") as made:
        work = Path(made)
        folders = [package.unpack(work) for package in suite.PACKAGES]
        benchmark_writer.write(suite.build(folders, work), Location.of(work / "benchmark"))
        try:
            os.rename(work / "benchmark", place.uri)
        except OSError:  # somebody else was quicker
            if not place.exists():
                raise
            shutil.rmtree(work / "benchmark")
    return place


def benchmark(
    spec: Spec,
    pictures: Sequence[tuple[str, Path]],
    labels: dict[str, np.ndarray],
    texts: Sequence[Queries] = (),
    train: Benchmark | None = None,
) -> Benchmark:
    """A benchmark of named files."""
    found = tuple(Location.of(path) for _, path in pictures)
    return Benchmark(spec, "", tuple(name for name, _ in pictures), found, labels, tuple(texts), train=train)


def queries(perspective: str, said: Sequence[tuple[str, int]]) -> Queries:
    """Texts with the pictures they are true for, as (text, picture) pairs; each text is one query."""
    number = {text: place for place, text in enumerate(dict.fromkeys(text for text, _ in said))}
    pairs = sorted({(number[text], picture) for text, picture in said})
    text_P, image_P = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    return Queries(perspective, tuple(number), text_P, image_P)


def class_numbers(names: Sequence[str | None], classes: Sequence[str]) -> np.ndarray:
    """The classes of pictures by name, as numbers; -1 where there is none."""
    place = {name: number for number, name in enumerate(classes)}
    return np.array([-1 if name is None else place[name] for name in names], dtype=np.int64)
