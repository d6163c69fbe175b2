"""Emoji in three hands: one meaning drawn by Noto, Twemoji and Fluent, with labels, tags and groups.

A label is true for the pictures of its concept in every hand; skin tones are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evaluation.benchmarks import Benchmark
from evaluation.classes import Classes
from evaluation.contents import Spec
from evaluation.fetching.fetch import benchmark, class_numbers, queries
from evaluation.fetching.packages import Npm

ABOUT = (
    "Emoji drawn by three hands, about 1,900 concepts: retrieval by label and tags, zero-shot by group and subgroup"
)
PACKAGES = (
    Npm("emojibase-data", "17.0.0", "MIT"),
    Npm("emoji-datasource-google", "16.0.0", "MIT; pictures of Noto, Apache-2.0"),
    Npm("emoji-datasource-twitter", "16.0.0", "MIT; pictures of Twemoji, CC-BY-4.0"),
    Npm("@lobehub/fluent-emoji-3d", "1.1.0", "MIT"),
)
HANDS = (("noto", "img/google/64"), ("twemoji", "img/twitter/64"), ("fluent", "assets"))
COMPONENTS = 2  # the group of skin tones and hair
TEMPLATES = ("an emoji of {}", "an emoji about {}", "{}")


def build(folders: Sequence[Path], work: Path) -> Benchmark:  # noqa: ARG001 - the pictures stay as they are
    """Pictures are called HAND/CODE; a concept needs a group, and counts with the hands that have drawn it."""
    found = list(drawn(folders))
    pictures = [(f"{hand}/{code}{path.suffix}", path) for hand, code, path, _ in found]
    about = [row for *_, row in found]
    kinds = {kind: kinds_of(folders, kind) for kind in ("group", "subgroup")}
    tasks, labels = {}, {}
    for kind, named in kinds.items():
        present = [named[number] for number in sorted({row[kind] for row in about})]
        tasks[kind] = Classes(classes=tuple(present), templates=TEMPLATES)
        labels[kind] = class_numbers([named[row[kind]] for row in about], present)
    said = [
        queries("label", [(row["label"], number) for number, row in enumerate(about)]),
        queries("tags", [(", ".join(row["tags"]), number) for number, row in enumerate(about) if row.get("tags")]),
    ]
    relevance = "A text is true for every drawing of its concept, by the code points."
    spec = Spec(name="emoji", split="all", relevance=relevance, classification=tasks)
    return benchmark(spec, pictures, labels, said)


def drawn(folders: Sequence[Path]) -> Iterator[tuple[str, str, Path, dict[str, Any]]]:
    """Hand, code, picture and description of every concept that a hand has drawn, hand by hand."""
    texts, *hands = folders
    concepts = {_code(row["hexcode"]): row for row in _json(texts / "en" / "data.json") if _is_concept(row)}
    for (hand, inside), folder in zip(HANDS, hands, strict=True):
        found = {_code(path.stem): path for path in sorted((folder / inside).iterdir()) if _is_picture(path)}
        for code, row in concepts.items():
            if code in found:
                yield hand, code, found[code], row


def kinds_of(folders: Sequence[Path], kind: str) -> dict[int, str]:
    """The names of groups or subgroups, by the numbers that descriptions have."""
    names = _json(folders[0] / "en" / "messages.json")
    return {part["order"]: part["message"] for part in names[f"{kind}s"]}


def _is_concept(row: dict[str, Any]) -> bool:
    return row.get("group", COMPONENTS) != COMPONENTS and "subgroup" in row


def _is_picture(path: Path) -> bool:
    return path.suffix in (".png", ".webp")


def _code(name: str) -> str:
    """Code points as all packages write them: in small letters, without the mark of an emoji's look."""
    return "-".join(part for part in name.lower().split("-") if part != "fe0f")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf8"))
