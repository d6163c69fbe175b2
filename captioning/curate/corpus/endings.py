"""How the captions of a corpus end, for those whose finish_reason is not known.

A model that ends its sentences in a full stop does so nearly always; some words hardly ever stand last ("a rustic"),
and some do that look as if they could not ("with the lights on"). These are habits of a perspective and granularity,
so they are counted for each, over the captions without a `finish_reason`. Where every engine has told one, nothing is
counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from captioning.curate.draft import Draft
from captioning.curate.text_rules.markup.unwrap import bare
from captioning.curate.text_rules.words import is_ended, words
from pipeline.identity import digest

SENTENCES = ("sentence", "paragraph")
LIST = "word"
MIN_CAPTIONS = 100  # of a slot, to say anything about its full stops
NEARLY_ALL = 0.95
USUAL = 0.01  # of a slot's captions
MIN_WORDS = 30  # how often a word must occur before its place tells anything
SELDOM = 0.01  # once is seldom in any case: cuts are among what is counted
SCHEMA = pa.schema(
    [("perspective", pa.string()), ("granularity", pa.string()), ("word", pa.string()), ("times", pa.int64()),
     ("last", pa.int64())]
)  # fmt: skip
ANY = ""  # in place of a word: the captions of the slot, and how many of them are ended

Slot = tuple[str, str]  # perspective, granularity


@dataclass(frozen=True)
class Habits:
    """`stopped`: the slots whose captions nearly all end in a full stop; words that seldom (`inner`) and often
    (`usual`) end a caption.
    """

    stopped: frozenset[Slot] = frozenset()
    usual: Mapping[Slot, frozenset[str]] = field(default_factory=dict)
    inner: Mapping[Slot, frozenset[str]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of all of it, whatever the order."""
        by_slot = [[(slot, sorted(some)) for slot, some in sorted(told.items())] for told in (self.usual, self.inner)]
        return digest([sorted(self.stopped), *by_slot])

    def is_cut(self, slot: Slot, last: str) -> bool:
        """Whether a caption without an end, whose last word this is, was cut off."""
        return slot in self.stopped or last in self.inner.get(slot, ())


@dataclass(frozen=True)
class Endings:
    """Counts words, and how often they stand last, by slot; the draft's texts are the raw ones."""

    markup: bool = True  # whether it is taken off first

    name = "endings"
    reads = ("finish_reason", "status")

    @property
    def digest(self) -> str:
        """Of what decides the counts of a shard."""
        return digest([2, self.markup])

    def of_shard(self, draft: Draft) -> pa.Table:
        """Counts of the shard's captions that have no finish_reason, but for lists."""
        times: Counter[tuple[Slot, str]] = Counter()
        last: Counter[tuple[Slot, str]] = Counter()
        for row, finish in enumerate(draft.columns["finish_reason"]):
            slot = draft.slot(row)
            if finish is None and draft.columns["status"][row] == "ok" and slot[1] != LIST:
                text = bare(draft.texts[row], slot[1]) if self.markup else draft.texts[row]
                spoken = words(text)
                times.update((slot, word) for word in spoken)
                times[slot, ANY] += 1
                last[slot, ANY] += is_ended(text)
                last.update((slot, word) for word in spoken[-1:])
        rows = [(*slot, word, count, last[slot, word]) for (slot, word), count in sorted(times.items())]
        return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * len(SCHEMA), schema=SCHEMA)

    def merge(self, tables: Iterator[pa.Table]) -> Habits:
        """The habits of the corpus; they grow with the language, not with the corpus."""
        total = SCHEMA.empty_table()
        for table in tables:
            if len(table):
                total = _summed(pa.concat_tables([total, table]))
        slots = defaultdict[Slot, dict[str, tuple[int, int]]](dict)
        for perspective, granularity, word, times, last in zip(*(c.to_pylist() for c in total.columns), strict=True):
            slots[perspective, granularity][word] = (times, last)
        ends = {slot: told.pop(ANY) for slot, told in slots.items()}
        enough = {slot for slot, (captions, _) in ends.items() if captions >= MIN_CAPTIONS}
        return Habits(
            frozenset(slot for slot in enough if slot[1] in SENTENCES and ends[slot][1] >= NEARLY_ALL * ends[slot][0]),
            {slot: _words(slots[slot], lambda _, last: last >= USUAL * ends[slot][0]) for slot in enough},  # noqa: B023
            {slot: _words(told, _is_inner) for slot, told in slots.items() if slot[1] in SENTENCES},
        )


def _is_inner(times: int, last: int) -> bool:
    return times >= MIN_WORDS and last <= max(1, SELDOM * times)


def _words(told: Mapping[str, tuple[int, int]], fits: Callable[[int, int], bool]) -> frozenset[str]:
    return frozenset(word for word, (times, last) in told.items() if fits(times, last))


def _summed(table: pa.Table) -> pa.Table:
    keys = ["perspective", "granularity", "word"]
    return table.group_by(keys).aggregate([("times", "sum"), ("last", "sum")]).rename_columns(SCHEMA.names)
