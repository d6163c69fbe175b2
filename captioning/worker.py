"""The actor: holds one engine and turns work items into committed parts, one at a time.

It reads the shard itself, by reference; nothing but a short report goes back. It is plain Python: Ray runs it in
actors, and without Ray it runs in this process.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captioning import store
from captioning.attempts import HOPELESS, TRIES, Attempt
from captioning.cells import Cell
from captioning.config import EngineConfig, ModelReference
from captioning.engines import base, choose
from captioning.models import resolve
from captioning.questions import Questions, Wanted
from captioning.store import WorkItem
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.errors import EngineError, HolismError
from pipeline.shards import ShardReader
from pipeline.storage import Location


@dataclass(frozen=True)
class WorkerSpec:
    """All that an actor has to know: where the store is, what to ask, and what to ask it with."""

    store: Location
    cells: tuple[Cell, ...]
    reference: ModelReference  # every machine finds the model for itself
    engine: EngineConfig
    threads: int = 1


class CaptionWorker:
    """Answers work items. The engine starts with the first question."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.cells = {cell.id: cell for cell in spec.cells}
        self.log = CommitLog(spec.store)
        self._engine: base.Engine | None = None
        self._started = False
        self._deaths = 0
        self._images: tuple[str, list[dict[str, Any]]] = ("", [])

    def work(self, item: WorkItem) -> list[Part]:
        """Answer one item and commit its part, or its images' parts if somebody died on it before.

        Raises `EngineError` if the engine does not start, or dies again and again without an answer.
        """
        if (done := self._done(item)) is not None:
            return [done]
        while True:
            attempt = Attempt.at(self.spec.store, item.note)
            attempt.begin()
            try:
                parts = self._attempt(item, attempt)
            except base.EngineDiedError as error:
                self._bury(error)
            except (KeyboardInterrupt, SystemExit, HolismError):
                attempt.withdraw()
                raise
            else:
                attempt.clear()
                return parts

    def _bury(self, error: Exception) -> None:
        self.stop()
        self._deaths += 1
        if self._deaths >= HOPELESS:
            raise EngineError(f"the engine died {self._deaths} times without one answer in between: {error}")

    def stop(self) -> None:
        """Release the engine."""
        engine, self._engine, self._started = self._engine, None, False
        if engine is not None:
            engine.stop()

    def _attempt(self, item: WorkItem, attempt: Attempt) -> list[Part]:
        started = time.monotonic()
        if attempt.count > 1 and not item.is_single:
            return self._one_by_one(item, attempt)
        questions = Questions(self._make(), ShardReader({item.shard.name: item.shard.tar}), self._answers(item))
        before = store.read_part(self.spec.store, item.part) if item.retry else []
        wanted = self._wanted(item, before)
        if item.is_single and attempt.count > TRIES:
            reason = f"the engine died {attempt.count - 1} times on this image"
            rows = [row for want in wanted for row in questions.give_up(want, reason)]
        else:
            self._start()
            rows = questions.ask(wanted)
            self._deaths = 0
        return [self._commit(item, _merge(before, rows), time.monotonic() - started)]

    def _one_by_one(self, item: WorkItem, attempt: Attempt) -> list[Part]:
        """Every image is committed alone, so that whoever dies costs no other image a second attempt."""
        if attempt.count > HOPELESS:
            deaths = attempt.count - 1
            attempt.clear()  # the next run, on a mended machine, begins anew
            raise EngineError(
                f"the engine died {deaths} times on shard {item.shard.name} without one answer in between; "
                "see that the model fits into memory and that the engine runs at all"
            )
        parts: dict[str, Part] = {}
        for row in range(item.start, item.stop):
            made = self.work(item.narrow(row))
            parts |= {part.name: part for part in made}
            if any(part.rows > part.errors for part in made):
                attempt.progress()
        return list(parts.values())

    def _done(self, item: WorkItem) -> Part | None:
        """The part, if it was committed since the item was planned: by whoever died with it in hand."""
        part = None if item.retry else self.log.get(item.part)
        return part if part is not None and part.detail["stop"] == item.stop else None

    def _make(self) -> base.Engine:
        if self._engine is None:
            model = resolve(self.spec.reference, self.spec.engine)
            self._engine = choose.make(self.spec.engine, model, self.spec.threads)
        return self._engine

    def _start(self) -> None:
        if not self._started:
            self._make().start()
            self._started = True

    def _wanted(self, item: WorkItem, before: Sequence[Mapping[str, Any]]) -> list[Wanted]:
        """Which images of the range are asked which cells."""
        cells = tuple(self.cells[cell] for cell in item.cells)
        images = [row for row in self._image_rows(item.shard.images)[item.start : item.stop] if row["status"] == "ok"]
        if not item.retry:
            return [Wanted(image, cells) for image in images]
        failed = {(row["key"], row["cell"]) for row in before if row["status"] != "ok"}
        chosen = [
            Wanted(image, tuple(cell for cell in cells if (image["key"], cell.id) in failed)) for image in images
        ]
        return [want for want in chosen if want.cells]

    def _answers(self, item: WorkItem) -> dict[tuple[str, str], dict[str, Any]]:
        """Answers that chains of this item go on from and that are in the store already."""
        return {
            (row["key"], row["cell"]): row
            for name in item.sources
            for row in store.read_part(self.spec.store, name)
            if row["status"] == "ok"
        }

    def _image_rows(self, uri: str) -> list[dict[str, Any]]:
        if self._images[0] != uri:
            columns = ["shard", "key", "image_id", "offset", "size", "status"]
            self._images = (uri, schemas.read(Location.of(uri), schemas.IMAGES, columns).to_pylist())
        return self._images[1]

    def _commit(self, item: WorkItem, rows: list[dict[str, Any]], seconds: float) -> Part:
        """Commit the rows; a part that is replaced keeps its cells and its range, of which a retry sees a piece."""
        old = self.log.get(item.part) if item.retry else None
        errors = [row["error"] for row in rows if row["status"] != "ok"]
        return self.log.commit(
            item.part,
            schemas.encode(schemas.table(schemas.CAPTIONS, rows), schemas.CAPTIONS),
            rows=len(rows),
            errors=len(errors),
            cells=old.cells if old else item.cells,
            seconds=seconds,
            detail={
                "shard": item.shard.name,
                "start": old.detail["start"] if old else item.start,
                "stop": old.detail["stop"] if old else item.stop,
                "figures": store.figures(rows),
                "first_error": errors[0] if errors else None,
            },
        )


def _merge(before: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The old rows with the new ones in place of those that they answer again."""
    if not before:
        return list(asked)
    new = {(row["key"], row["cell"]): row for row in asked}
    return [new.get((row["key"], row["cell"]), row) for row in before]
