"""Which text of a tar belongs to which picture.

The samples of WebDataset share a key: the name of their members up to its first dot. But names have more dots than
one, for numbers (`22.05.png`), views (`a.left.jpg`) or roles (`s0.input.jpg`, `s0.outputs.txt`). So a text belongs

1. to the picture whose name it has up to its last dot, or in full (`a.jpg.txt`), then
2. to all pictures of its key, if the key is all of its name (`a.txt`), then
3. to the only picture of its key, if both have a role or none: a word between the key and the last dot.

Where a name occurs several times, each picture gets the text that stands with it, if each has its own; else none does.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pipeline import picture_kinds
from pipeline.ingest.names import stem_of
from pipeline.ingest.sidecars import UNPAIRED, Sidecar, TextRules, choose
from pipeline.ingest.tally import Tally
from pipeline.texts import name_key

REPLACED = "texts that a later member of the same name replaces"
TWINS = "texts of several pictures of one name, of which it cannot be told whose they are"
_ROLE = re.compile(r"[A-Za-z_][\w-]*\Z")


@dataclass(slots=True)
class TarPicture:
    """A picture of a tar with the text that belongs to it, or with the reason why its bytes cannot be used."""

    key: str
    name: str
    offset: int
    size: int
    problem: str | None = None
    alt_text: str | None = None
    url: str | None = None


TarFile = TarPicture | Sidecar


def key_of(name: str) -> str:
    """The key of a member: its name up to the first dot behind the last slash."""
    folder, _, base = name.rpartition("/")
    stem = base.partition(".")[0]
    return f"{folder}/{stem}" if folder else stem


def role_of(name: str) -> str | None:
    """The role of a member: empty if its name has one dot, None if what stands between its dots is no word."""
    middle = stem_of(name.rpartition("/")[2]).partition(".")[2]
    if f".{middle.lower()}" in picture_kinds.SUFFIXES:
        return None
    return middle if not middle or _ROLE.match(middle) else None


def pair(entries: Iterable[TarFile], rules: TextRules, left_out: Tally, mended: Tally) -> None:
    """Give every picture its text and URL. `entries` come in the order of the tar."""
    by_key: dict[str, list[TarFile]] = defaultdict(list)
    for entry in entries:
        by_key[name_key(key_of(_name(entry)))].append(entry)
    for group in by_key.values():
        for part in _rounds(group, left_out):
            _pair_one_of_each(part, rules, left_out, mended)


def _rounds(group: list[TarFile], left_out: Tally) -> list[list[TarFile]]:
    """A group in parts in which each name occurs once."""
    names = [name_key(_name(entry)) for entry in group]
    counts = Counter(names)
    if len(counts) == len(names):
        return [group]
    rounds: list[dict[str, TarFile]] = [{}]
    for name, entry in zip(names, group, strict=True):
        if name in rounds[-1]:
            rounds.append({})
        rounds[-1][name] = entry
    if all(one.keys() == rounds[0].keys() for one in rounds):
        return [list(one.values()) for one in rounds]
    twins = {n for n, entry in zip(names, group, strict=True) if counts[n] > 1 and isinstance(entry, TarPicture)}
    unclear = {stem for name in twins for stem in (name, stem_of(name), key_of(name))}
    single: dict[str, TarFile] = {}
    for name, entry in zip(names, group, strict=True):
        if isinstance(entry, Sidecar) and stem_of(name) in unclear:
            left_out.add(TWINS, entry.file)
        elif name not in twins:
            if name in single:
                left_out.add(REPLACED, name)
            single[name] = entry
    return [list(single.values())]


def _pair_one_of_each(part: Sequence[TarFile], rules: TextRules, left_out: Tally, mended: Tally) -> None:
    pictures = [entry for entry in part if isinstance(entry, TarPicture)]
    by_stem: dict[str, list[Sidecar]] = defaultdict(list)
    for entry in part:
        if isinstance(entry, Sidecar):
            by_stem[name_key(stem_of(entry.file))].append(entry)
    used: set[str] = set()
    for picture in pictures:
        name = name_key(picture.name)
        own = [*by_stem.get(name, ()), *(by_stem.get(stem_of(name), ()) if stem_of(name) != name else ())]
        shared = by_stem.get(key_of(name), []) if key_of(name) != stem_of(name) else []
        groups = [own, shared]
        if len(pictures) == 1:
            near = {sidecar.file for sidecar in (*own, *shared)}
            groups = [[*own, *shared, *_by_role(picture, part, near)]]
        used.update(sidecar.file for group in groups for sidecar in group)
        picture.alt_text, picture.url = choose(groups, rules, left_out, mended)
    for entry in part:
        if isinstance(entry, Sidecar) and entry.file not in used:
            left_out.add(UNPAIRED, entry.file)


def _by_role(picture: TarPicture, part: Sequence[TarFile], near: set[str]) -> list[Sidecar]:
    if role_of(picture.name) is None:
        return []
    others = [entry for entry in part if isinstance(entry, Sidecar) and entry.file not in near]
    return [replace(entry, role=role, by_role=True) for entry in others if (role := role_of(entry.file))]


def _name(entry: TarFile) -> str:
    return entry.name if isinstance(entry, TarPicture) else entry.file
