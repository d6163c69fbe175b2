"""The captions of one shard while they are curated.

A gadget looks at a draft and drops captions, each with one reason of those it declares. A dropped caption is
closed: later gadgets do not see it. So every caption has at most one verdict, and gadgets are counted alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from captioning.curate.selection import lexical, padding
from captioning.curate.text_rules.words import cut
from captioning.importing import IMPORTED
from pipeline.errors import StoreError

IDENTITY = ("caption_id", "key")  # columns every draft has


COMPARED = 1_000  # captions of an image, whose similarities are 4 MB
KEPT = 1 << 25  # similarities of a draft that are kept, 128 MB


@dataclass
class CaptionBlock:
    """Captions of many images as arrays: rows of the draft (see `padding`) and their lexical similarity.

    Similarities are computed when they are asked for, and `kept` for the next time where there is room.
    """

    rows_BM: np.ndarray
    compute: Callable[[np.ndarray], np.ndarray]
    kept: bool
    _similarity_BMM: np.ndarray | None = None

    @property
    def similarity_BMM(self) -> np.ndarray:
        """Of all captions of an image with each other, (B, M, M) float32."""
        similarity_BMM = self._similarity_BMM if self._similarity_BMM is not None else self.compute(self.rows_BM)
        self._similarity_BMM = similarity_BMM if self.kept else None
        return similarity_BMM


class Judge(Protocol):
    """Who drops captions: a gadget."""

    @property
    def name(self) -> str:
        """What verdicts call it."""

    @property
    def reasons(self) -> Collection[str]:
        """All it may drop for."""


class Draft:
    """One row per caption of a shard, in an order that depends on content alone.

    `texts` are cleaned in place; `scores` and `verdicts` grow as gadgets go over the rows. `images` lists the rows
    of each image, of which `compared` at most are compared with each other; `imported` are the rows of imported
    captions, where the columns have `engine`.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]], *, ngram: int = 2, compared: int = COMPARED) -> None:
        keys, identities = columns["key"], columns["caption_id"]
        order = sorted(range(len(keys)), key=lambda row: (keys[row], identities[row]))
        self.columns = {name: [values[row] for row in order] for name, values in columns.items()}
        self.texts: list[str] = [text or "" for text in self.columns["text"]]
        self.verdicts: list[tuple[str, str] | None] = [None] * len(order)
        self.scores: list[dict[str, float]] = [{} for _ in order]
        self.images = _runs(self.columns["key"])
        self.imported = frozenset(
            row for row, engine in enumerate(self.columns.get("engine", ())) if engine == IMPORTED
        )
        self._aside = frozenset[int]()
        self._words: list[tuple[str, tuple[str, ...]]] = [("", ())] * len(order)
        self._ngram = ngram
        self.compared = compared
        self._blocks: list[CaptionBlock] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def open_rows(self) -> Iterator[int]:
        """Rows to judge: those that no gadget has dropped so far; dropping while iterating is fine."""
        return (row for row, verdict in enumerate(self.verdicts) if verdict is None and row not in self._aside)

    def open_of(self, image: range) -> list[int]:
        """The rows of an image to judge."""
        return [row for row in image if self.verdicts[row] is None and row not in self._aside]

    def kept_of(self, image: range) -> list[int]:
        """The rows of an image that no gadget has dropped so far, whether or not they are to be judged now."""
        return [row for row in image if self.verdicts[row] is None]

    @contextmanager
    def setting_aside(self, rows: frozenset[int]) -> Iterator[None]:
        """Rows that are not judged meanwhile: they stay as they are, and the others can be compared with them."""
        self._aside = rows
        try:
            yield
        finally:
            self._aside = frozenset()

    def drop(self, row: int, gadget: Judge, reason: str) -> None:
        """Close a row. A reason the gadget does not declare, or a second verdict, is a mistake of ours."""
        if reason not in gadget.reasons or self.verdicts[row] is not None:
            raise ValueError(f"gadget {gadget.name} cannot drop row {row} as {reason}: {self.verdicts[row]}")
        self.verdicts[row] = (gadget.name, reason)

    def resume(
        self,
        caption_ids: Sequence[str],
        gadgets: Sequence[str | None],
        reasons: Sequence[str | None],
        scores: Sequence[Sequence[tuple[str, float]]],
        texts: Sequence[str | None],
    ) -> None:
        """Take over the verdicts, scores and clean texts (None: unchanged) that earlier gadgets left, row by row.

        Raises `StoreError` if they are about other captions.
        """
        if list(caption_ids) != self.columns["caption_id"]:
            raise StoreError(f"verdicts on {len(caption_ids):,} captions do not fit the {len(self):,} captions here")
        self.verdicts = [
            None if gadget is None or reason is None else (gadget, reason)
            for gadget, reason in zip(gadgets, reasons, strict=True)
        ]
        self.scores = [dict(own) for own in scores]
        self.texts = [old if new is None else new for old, new in zip(self.texts, texts, strict=True)]

    def slot(self, row: int) -> tuple[str, str]:
        """What coverage counts: the row's (perspective, granularity)."""
        return self.columns["perspective"][row], self.columns["granularity"][row]

    def words(self, row: int) -> tuple[str, ...]:
        """The words of a row's text; however many gadgets ask, a text is cut into words once."""
        text, known = self.texts[row], self._words[row]
        if known[0] is not text:
            self._words[row] = known = (text, cut(text))
        return known[1]

    def blocks(self) -> Sequence[CaptionBlock]:
        """The images side by side, with the rows that are open when this is first asked: after the text gadgets."""
        if self._blocks is None:
            images = [self._thinned(self.kept_of(image)) for image in self.images]
            self._blocks, cells = [], 0
            for rows_BM in padding.blocks(images):
                cells += rows_BM.size * rows_BM.shape[1]
                self._blocks.append(CaptionBlock(rows_BM, self._similarity, kept=cells <= KEPT))
        return self._blocks

    def _similarity(self, rows_BM: np.ndarray) -> np.ndarray:
        return lexical.similarity(self.words, rows_BM, self._ngram)

    def _thinned(self, rows: list[int]) -> list[int]:
        """As many rows of an image as are compared: those first that come first in their slot, then by caption_id."""
        if len(rows) <= self.compared:
            return rows
        before = Counter[tuple[str, str]]()
        turns = []
        for row in rows:
            turns.append((before[self.slot(row)], row))
            before[self.slot(row)] += 1
        return sorted(row for _, row in sorted(turns)[: self.compared])

    def is_open(self, rows_BM: np.ndarray) -> np.ndarray:
        """Which of these rows are there and to be judged, as booleans."""
        is_open = [
            row != padding.ABSENT and self.verdicts[row] is None and row not in self._aside
            for row in rows_BM.ravel().tolist()
        ]
        return np.array(is_open, bool).reshape(rows_BM.shape)

    @cached_property
    def slot_numbers(self) -> np.ndarray:
        """The slot of every row as a number, (rows,)."""
        numbers: dict[tuple[str, str], int] = {}
        slots = zip(self.columns["perspective"], self.columns["granularity"], strict=True)
        return np.array([numbers.setdefault(slot, len(numbers)) for slot in slots], np.int64)


def _runs(keys: Sequence[str]) -> list[range]:
    """Ranges of equal neighbours."""
    starts = [row for row, key in enumerate(keys) if row == 0 or key != keys[row - 1]]
    return [range(start, stop) for start, stop in pairwise([*starts, len(keys)])]
