"""What a gadget is: one step of curation, which declares all that the others must know of it.

From the declarations come the sections of the configuration, the order, the table of reasons, the counts, and the
settings that a step's results depend on. So a gadget is one file in `gadgets/`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from captioning.curate.corpus.endings import Habits
from captioning.curate.draft import Draft
from captioning.curate.measures.measured import Measured
from pipeline.config import Section

Pass = Literal["texts", "images"]
PASSES: tuple[Pass, ...] = ("texts", "images")
Origin = Literal["model", "imported", "alt_text"]


@dataclass(frozen=True)
class Known:
    """What is known of the corpus when captions are judged, and what is measured. Plain data, sent to any process.

    Texts are judged with the `openers` and `habits` that were learnt; images with the `crowded` buckets of
    near-duplicates, the lowest image-text score by perspective (`thresholds`), the words that stand for things
    (`objects`), the measures that the configuration asks for, and the shard's `alt_texts` by key.
    """

    openers: Sequence[str] = ()
    habits: Habits = field(default_factory=Habits)
    crowded: Mapping[int, int] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    objects: tuple[str, ...] = ()
    image_text: Measured | None = None
    embed: Measured | None = None
    alt_texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """What a gadget is made from: the `settings` that it declares by name, and what is known of the corpus."""

    settings: Mapping[str, Any]
    known: Known


class Gadget(ABC):
    """Cleans, scores or drops the open rows of a draft; the constants say what it is."""

    name: ClassVar[str]
    """What verdicts and the configuration's section call it."""

    settings: ClassVar[type[Section]]
    """Its section."""

    judges: ClassVar[Pass]
    """`texts`: what a caption can be judged by alone, or beside its image's other answers. `images`: what needs the
    corpus, the picture, or the clean captions beside it."""

    origins: ClassVar[tuple[Origin, ...]] = ("model",)
    """Whose texts it judges where the settings `imported` and `alt_text` do not say. All judge those of models."""

    after: ClassVar[str] = ""
    """The gadget of the same pass that it comes after, as soon as it can; empty: it begins."""

    made_from: ClassVar[tuple[str, ...]]
    """Names of all settings of `curate` that `make` is given: its results depend on these, and on what is known."""

    reads: ClassVar[tuple[str, ...]] = ()
    """Columns of the captions table it looks at beside the text."""

    reasons: ClassVar[Mapping[str, str]] = {}
    """All it may drop for, and what each means in plain words."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def make(cls, given: Given) -> Self | None:
        """The gadget, or None where it has nothing to do. Most need their own section alone."""
        return cls(given.settings[cls.name])

    @abstractmethod
    def apply(self, draft: Draft) -> None:
        """Clean, score or drop open rows."""


def names_perspectives(default: Any, description: str) -> Any:
    """Declare a setting that names perspectives (one, several, or a mapping by them), so that names can be checked."""
    return Field(default, description=description, json_schema_extra={"perspectives": True})


def in_order(gadgets: Iterable[type[Gadget]]) -> tuple[type[Gadget], ...]:
    """The gadgets as they are applied: those of texts first, each after the one that it names, then by name."""
    by_name = {gadget.name: gadget for gadget in gadgets}
    for gadget in by_name.values():
        if gadget.after and (gadget.after not in by_name or by_name[gadget.after].judges != gadget.judges):
            raise ValueError(f"gadget {gadget.name} comes after {gadget.after!r}, which is no gadget of its pass")
    sorter = TopologicalSorter({name: [one.after] if one.after else [] for name, one in by_name.items()})
    sorter.prepare()
    ordered: list[type[Gadget]] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += [by_name[name] for name in ready]
        sorter.done(*ready)
    return tuple(sorted(ordered, key=lambda gadget: PASSES.index(gadget.judges)))


@dataclass(frozen=True)
class GadgetReport:
    """What one gadget did to one draft."""

    seen: int
    changed: int
    dropped: Mapping[str, int]
    seconds: float


def run_gadgets(draft: Draft, gadgets: Sequence[Gadget], imported: Collection[str] = ()) -> dict[str, GadgetReport]:
    """Apply gadgets in order and report each alone. Those named in `imported` judge imported captions too."""
    reports = {}
    for gadget in gadgets:
        with draft.setting_aside(frozenset() if gadget.name in imported else draft.imported):
            started, before, seen = time.perf_counter(), list(draft.texts), sum(1 for _ in draft.open_rows())
            gadget.apply(draft)
        seconds = time.perf_counter() - started
        dropped = Counter(verdict[1] for verdict in draft.verdicts if verdict and verdict[0] == gadget.name)
        changed = sum(old != new for old, new in zip(before, draft.texts, strict=True))
        reports[gadget.name] = GadgetReport(seen, changed, dict(dropped), seconds)
    return reports
