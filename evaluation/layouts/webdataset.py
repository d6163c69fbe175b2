"""WebDataset as CLIP_benchmark lays it out: SPLIT/0.tar and on, and what the whole set shares in text files.

SPLIT/nshards.txt, SPLIT/0.tar …            KEY.jpg (png, webp) with KEY.cls (a class's number) or KEY.txt (captions)
classnames.txt                              a class a line, in order of numbers
zeroshot_classification_templates.txt       a template a line, with {c} for the class name
dataset_type.txt                            `retrieval` where tars hold captions, one a line
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from evaluation import classes
from evaluation.classes import HOLE, Classes, Templates
from evaluation.contents import Contents, Member, MissingDataError
from evaluation.layouts import places
from pipeline import picture_kinds, texts
from pipeline.config import Section
from pipeline.errors import InputError
from pipeline.ingest.members import Members
from pipeline.ingest.names import suffix_of
from pipeline.ingest.pairing import key_of
from pipeline.storage import Location

LABEL, CAPTIONS = ".cls", ".txt"


@dataclass
class _Sample:
    """What a tar holds under one key."""

    picture: Member | None = None
    label: str | None = None
    captions: tuple[str, ...] = ()


class WebdatasetLayout(Section):
    """Tars of pictures with classes or captions, read where they are."""

    kind: Literal["webdataset"] = "webdataset"
    templates: Templates | None = Field(
        None, description="sentences with {}, or a set's name; without it, those that lie beside the tars"
    )
    task: str = Field("class", description="what the classes are called together")

    def read(self, root: Location, split: str) -> Contents:
        """The pictures of a split in the order of its tars."""
        kind_file = root / "dataset_type.txt"
        kind = _lines(kind_file)[0].lower() if kind_file.exists() else "classification"
        if kind not in ("classification", "retrieval"):
            raise InputError(f"{kind_file} says {kind!r}; expected classification or retrieval")
        samples = {key: sample for tar in _tars(root, split) for key, sample in _samples(tar)}
        shown = {key: sample.picture for key, sample in samples.items() if sample.picture is not None}
        if not shown:
            raise InputError(f"the tars of {root / split} hold no pictures")
        pictures = tuple(shown.values())
        names, sizes = tuple(_file(key, picture) for key, picture in shown.items()), tuple(p.size for p in pictures)
        if kind == "retrieval":
            captions = tuple(samples[key].captions for key in shown)
            if () in captions:
                raise places.no_text(root / split, names[captions.index(())])
            return Contents(names, pictures, sizes, captions=captions)
        described = self._classes(root)
        labels = [_label(samples[key], described, name, root) for key, name in zip(shown, names, strict=True)]
        return Contents(names, pictures, sizes, {self.task: described}, {self.task: np.array(labels, dtype=np.int64)})

    def _classes(self, root: Location) -> Classes:
        listed = places.find(root, ["classnames.txt"], "the list of classes")
        if self.templates is not None:
            return classes.described(_lines(listed), self.templates, str(listed))
        beside = places.find(root, ["zeroshot_classification_templates.txt"], "the list of templates")
        sentences = [line.replace("{c}", HOLE) for line in _lines(beside)]
        return classes.described(_lines(listed), sentences, str(listed.parent))


def _lines(location: Location) -> list[str]:
    text = texts.decode(location.read()).text
    if text is None:
        raise InputError(f"{location} is empty, or no text")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _tars(root: Location, split: str) -> list[Location]:
    """The tars that nshards.txt counts; all of the folder where there is no such file."""
    folder = root / split
    counted = folder / "nshards.txt"
    if counted.exists():
        number = _lines(counted)[0]
        if not number.isdecimal() or not int(number):
            raise InputError(f"{counted} says {number!r}, expected a number of tars")
        return [places.find(folder, [f"{shard}.tar"], "a tar") for shard in range(int(number))]
    found = sorted((file for file, _ in folder.files(".tar")), key=lambda file: (len(file.name), file.name))
    if not found:
        raise MissingDataError(f"the tars are missing: expected them at {folder}/0.tar and on, with {counted}")
    return found


def _samples(tar: Location) -> Iterator[tuple[str, _Sample]]:
    """What a tar holds by key; keys of two tars are told apart."""
    found: dict[str, _Sample] = {}
    with tar.open() as handle:
        members = Members(handle, tar.size())
        for member in members:
            sample, suffix = found.setdefault(key_of(member.name), _Sample()), suffix_of(member.name)
            if member.problem is not None:
                raise InputError(f"{member.name} in {tar} cannot be used: {member.problem}")
            if suffix in picture_kinds.SUFFIXES:
                sample.picture = Member(tar, member.name, member.offset, member.size)
            elif suffix in (LABEL, CAPTIONS):
                handle.seek(member.offset)
                text = texts.decode(handle.read(member.size)).text or ""
                if suffix == LABEL:
                    sample.label = text
                else:
                    sample.captions = tuple(line.strip() for line in text.splitlines() if line.strip())
        if damage := members.in_words():
            raise InputError(f"{tar} is damaged: {damage}")
    for key, sample in found.items():
        yield f"{tar.stem}/{key}", sample


def _file(key: str, picture: Member) -> str:
    return f"{key}{suffix_of(picture.name)}"


def _label(sample: _Sample, described: Classes, name: str, root: Location) -> int:
    if sample.label is None or not sample.label.isdecimal() or int(sample.label) >= len(described.classes):
        found = "no class" if sample.label is None else f"the class {sample.label!r}"
        raise InputError(f"{root}: {name} has {found}, expected a number from 0 to {len(described.classes) - 1}")
    return int(sample.label)
