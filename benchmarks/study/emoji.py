"""Real pictures for the study: emoji that people drew, with the words of Unicode's and Emojibase's authors.

    train     WebDataset tars: concepts that are not held out, by Noto and Twemoji, alt texts being their labels
    hand      benchmark: the same concepts by Fluent, a hand that training never saw
    concepts  benchmark: the held-out concepts, by all hands
    stamps    benchmark: Tux Paint's stamps, as `holism fetch` makes it

Captions are the data's own words: tags, subgroup and group, and a sentence of all of them. Retrieval asks `alt_text`,
`tags` and `sentence`, which are slots of training too; zero-shot asks the groups and subgroups that training has.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.study.shards import SHARD, Caption, Sample, write_shard
from evaluation import benchmark_folder, benchmark_writer
from evaluation.benchmarks import Benchmark
from evaluation.classes import Classes
from evaluation.contents import Picture, Queries, Spec
from evaluation.fetching.emoji import HANDS, TEMPLATES
from evaluation.fetching.fetch import class_numbers, fetch, queries
from pipeline import pictures
from pipeline.storage import Location

TRAINING_HANDS, NEW_HAND = ("noto", "twemoji"), "fluent"
ALL_HANDS = tuple(hand for hand, _ in HANDS)
KINDS = ("group", "subgroup")
RELEVANCE = "A text is true for every drawing of the concepts that it is the text of."
SIDE = 96  # pixels of a training picture
HELD_OUT_ONE_IN = 5
TAGS_OF_A_SENTENCE = 3
# Parts of a code that say who does something, and which way: woman and man, adults and children, signs of gender,
# "facing right", and what joins parts.
_WHO = ("1f468", "1f469", "1f9d1", "1f466", "1f467", "1f9d2", "2640", "2642", "27a1", "200d")


@dataclass(frozen=True)
class Concept:
    """One emoji, whoever drew it."""

    code: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str
    drawings: Mapping[str, tuple[str, Picture]]  # hand: name of the file, and where it lies

    @property
    def sentence(self) -> str:
        """All that is said of it; of the tags the first few that say more than the label."""
        further = [tag for tag in self.tags if tag.lower() not in self.label.lower()][:TAGS_OF_A_SENTENCE]
        tagged = f", tagged {_listed(further)}" if further else ""
        return f"An emoji called {self.label}, listed under {self.group} ({self.subgroup}){tagged}."

    def captions(self, key: str) -> Iterator[Caption]:
        """What training learns beside the label."""
        if self.tags:
            yield _caption(key, "tags", "word", ", ".join(self.tags))
        yield _caption(key, "subgroup", "phrase", self.subgroup)
        yield _caption(key, "group", "phrase", self.group)
        yield _caption(key, "summary", "sentence", self.sentence)


def write_emoji(out: Path) -> None:
    """Write what is missing below a folder. Raises `CannotFetchError` where the packages cannot be had."""
    if any(not (out / name).exists() for name in ("train", "hand", "concepts")):
        training, held_out = split(concepts(fetch("emoji")))
        classes = {kind: tuple(dict.fromkeys(getattr(concept, kind) for concept in training)) for kind in KINDS}
        _once(out / "train", partial(_write_training, training))
        _once(out / "hand", partial(_write_benchmark, "hand", training, (NEW_HAND,), classes))
        _once(out / "concepts", partial(_write_benchmark, "concepts", held_out, ALL_HANDS, classes))
    _once(out / "stamps", lambda folder: shutil.copytree(fetch("stamps").uri, folder))


def concepts(suite: Location) -> list[Concept]:
    """The concepts of the suite `emoji` of `holism fetch`, in its order."""
    found = benchmark_folder.read(suite)
    said = {one.perspective: _text_of_each(one) for one in found.queries}
    kinds = {kind: task.classes for kind, task in found.spec.classification.items()}
    drawings = dict[str, dict[str, tuple[str, Picture]]]()
    first = dict[str, int]()  # picture of each code
    for number, (file, picture) in enumerate(zip(found.contents.files, found.contents.pictures, strict=True)):
        hand, name = file.split("/")
        code = name.partition(".")[0]
        drawings.setdefault(code, {})[hand] = (file, picture)
        first.setdefault(code, number)
    return [
        Concept(
            code,
            label=said["label"][number],
            tags=tuple(said["tags"][number].split(", ")) if number in said["tags"] else (),
            drawings=drawings[code],
            **{kind: classes[found.contents.labels[kind][number]] for kind, classes in kinds.items()},
        )
        for code, number in first.items()
    ]


def split(found: Sequence[Concept]) -> tuple[list[Concept], list[Concept]]:
    """Concepts to train on, and those held out: always the same ones, a family never parted."""
    held_out = [is_held_out(code) for code in families(found)]
    return (
        [concept for concept, out in zip(found, held_out, strict=True) if not out],
        [concept for concept, out in zip(found, held_out, strict=True) if out],
    )


def is_held_out(code: str) -> bool:
    """Whether a family is held out, by the first of its codes."""
    return int(hashlib.sha256(code.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def families(found: Sequence[Concept]) -> list[str]:
    """The family of each concept, by the first of its codes.

    Of one family are man, woman and person doing the same, and concepts that a hand has drawn alike (flags of
    territories): else a held-out concept would look like one of training.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    marks = [{_without_who(concept.code), *_digests(concept)} for concept in found]
    place = {mark: number for number, mark in enumerate(sorted(set().union(*marks)))}
    pairs = [(concept, place[mark]) for concept, own in enumerate(marks) for mark in own]
    concept_P, mark_P = np.array(pairs).T
    shared = coo_matrix((np.ones(len(pairs)), (concept_P, mark_P)), (len(found), len(place))).tocsr()
    _, family_N = connected_components(shared @ shared.T, directed=False)
    first = dict[int, str]()
    for code, family in sorted(zip((concept.code for concept in found), family_N.tolist(), strict=True)):
        first.setdefault(family, code)
    return [first[family] for family in family_N.tolist()]


def _without_who(code: str) -> str:
    return "-".join(part for part in code.split("-") if part not in _WHO) or code


def _digests(concept: Concept) -> Iterator[str]:
    for _, picture in concept.drawings.values():
        yield hashlib.sha256(picture.read()).hexdigest()


def _once(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder unless it is there; it gets its name when it is whole."""
    if folder.exists():
        return
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    write(unfinished)
    unfinished.rename(folder)


def _write_training(training: Sequence[Concept], folder: Path) -> None:
    samples = (
        Sample(key, _shown(concept.drawings[hand][1]), concept.label, list(concept.captions(key)))
        for concept in training
        for hand in TRAINING_HANDS
        if hand in concept.drawings
        for key in [f"{hand}-{concept.code}"]
    )
    number = 0
    while shard := list(islice(samples, SHARD)):
        write_shard(folder / f"{number:05d}.tar", shard)
        number += 1


def _shown(picture: Picture) -> Image.Image:
    """A drawing on white, of the size that training wants."""
    return ImageOps.pad(pictures.decode(picture.read())[0], (SIDE, SIDE), Image.Resampling.BICUBIC, "white")


def _write_benchmark(
    name: str, asked: Sequence[Concept], hands: Sequence[str], classes: Mapping[str, tuple[str, ...]], folder: Path
) -> None:
    """Drawings of some concepts by some hands. A concept of a group that training has not has no label."""
    shown = [(concept, *concept.drawings[hand]) for hand in hands for concept in asked if hand in concept.drawings]
    about = [concept for concept, _, _ in shown]
    labels = {
        kind: class_numbers([own if (own := getattr(one, kind)) in known else None for one in about], known)
        for kind, known in classes.items()
    }
    said = (
        queries("alt_text", [(concept.label, number) for number, concept in enumerate(about)]),
        queries("tags", [(", ".join(one.tags), number) for number, one in enumerate(about) if one.tags]),
        queries("sentence", [(concept.sentence, number) for number, concept in enumerate(about)]),
    )
    tasks = {kind: Classes(classes=known, templates=TEMPLATES) for kind, known in classes.items()}
    spec = Spec(name=name, split=name, relevance=RELEVANCE, classification=tasks)
    files, found = tuple(file for _, file, _ in shown), tuple(picture for *_, picture in shown)
    benchmark_writer.write(Benchmark(spec, "", files, found, labels, said), Location.of(folder))


def _text_of_each(asked: Queries) -> dict[int, str]:
    """The text of each picture that has one."""
    pairs = zip(asked.pair_text_P.tolist(), asked.pair_image_P.tolist(), strict=True)
    return {picture: asked.texts[text] for text, picture in pairs}


def _caption(key: str, perspective: str, granularity: str, text: str) -> Caption:
    return {"key": key, "perspective": perspective, "granularity": granularity, "text": text}


def _listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
