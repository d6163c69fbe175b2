"""Tux Paint's stamps: cut-out photos and drawings with an English caption; their folders are a tree of categories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.benchmarks import Benchmark
from evaluation.classes import Classes
from evaluation.contents import Spec
from evaluation.fetching.fetch import benchmark, class_numbers, queries
from evaluation.fetching.packages import Deb
from pipeline import texts

ABOUT = "Cut-out photos and drawings with captions: retrieval, zero-shot by group (animals, food, space and others)"
PACKAGES = (Deb("tuxpaint-stamps-default", "GPL-2"),)
PLACE = "usr/share/tuxpaint/stamps"
TEMPLATES = ("a picture of something from the group {}", "a picture of {}", "{}")


def build(folders: Sequence[Path], work: Path) -> Benchmark:  # noqa: ARG001 - the pictures stay as they are
    """Pictures with a caption, by their path."""
    top = folders[0] / PLACE
    pictures, captions = list[tuple[str, Path]](), list[str]()
    for path in sorted(top.rglob("*.png")):
        caption = _caption(path.with_suffix(".txt"))
        if caption is not None:
            pictures.append((path.relative_to(top).as_posix(), path))
            captions.append(caption)
    groups = [name.split("/")[0] for name, _ in pictures]
    classes = tuple(sorted(set(groups)))
    spec = Spec(
        name="stamps",
        split="all",
        relevance="A caption is true for the pictures that have it.",
        classification={"group": Classes(classes=classes, templates=TEMPLATES)},
    )
    said = [queries("caption", [(caption, number) for number, caption in enumerate(captions)])]
    return benchmark(spec, pictures, {"group": class_numbers(groups, classes)}, said)


def _caption(path: Path) -> str | None:
    """The English caption: the first line of the text beside a stamp."""
    if not path.exists():
        return None
    text = texts.decode(path.read_bytes()).text
    return texts.clean(text.splitlines()[0]).text if text else None
