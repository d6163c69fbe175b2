"""`holism benchmark`: which suites there are, and a suite's data as a benchmark folder."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from evaluation import benchmark_writer, benchmarks, fetching, suites
from evaluation.config import SuiteAt
from evaluation.fetching import fetch
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.messages import say
from pipeline.storage import Location

WIDTH = 100


def listed() -> str:
    """The suites that come with Holism, with what they are and where their files are had."""
    lines = []
    for name in suites.names():
        suite = suites.shipped(name)
        had = [f"From {suite.source}."] if suite.source else []
        licence = [f"Licence: {suite.licence}."] if suite.licence else []
        told = " ".join([f"{suite.about}.", *had, *licence])
        lines += [name, *textwrap.wrap(told, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    for name in fetching.NAMES:
        told = f"{fetch.known(name).ABOUT}. Get it with: holism fetch {name}. Licence: {fetch.licences(name)}."
        lines += [name, *textwrap.wrap(told, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(lines)


def fetched(names: Sequence[str]) -> Iterator[str]:
    """Get suites into the cache, one after the other; says their licences first, and where they lie then."""
    for name in names:
        say(f"{name}: {fetch.licences(name)}")
        place = fetch.fetch(name)
        yield f"{write(SuiteAt(suite=name), None)}\nin {place}; name it in evaluate.benchmarks as {name}"


def write(at: SuiteAt, folder: str | None) -> str:
    """Write a suite's benchmark to a folder, or only look at it where there is none; says what it holds."""
    found = benchmarks.read(at)
    asked = [f"{len(one.texts):,} texts ({found.name}/{one.protocol})" for one in found.queries]
    tasks = found.spec.classification.values()
    asked += [f"{len(task.classes):,} classes ({found.name}/{task.protocol})" for task in tasks]
    regions = found.spec.segmentation.values()
    asked += [f"{len(one.labels):,} labels of regions ({found.name}/{one.protocol})" for one in regions]
    asked += [f"{len(one.right):,} choices ({one.kind.replace('_', ' ')})" for one in found.choices]
    told = f"{found.name}: {len(found.files):,} images, {', '.join(asked)}"
    if folder is None:
        return told
    benchmark_writer.write(found, Location.of(folder))
    return f"{told}\nwritten to {Location.of(folder)}; name this folder in evaluate.benchmarks"


def at(suite: str, root: str | None, images: str | None, name: str | None) -> SuiteAt:
    """A suite and where it lies, as the command line gives them; NAME=FOLDER as in a configuration."""
    if "=" in suite:
        if root is not None:
            raise ConfigError(f"found {suite!r} and --root {root}; give the folder once")
        suite, _, root = suite.partition("=")
    given = {"suite": suite, "root": root, "images": images, "name": name}
    return build(SuiteAt, given, source="holism benchmark")
