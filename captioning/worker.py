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
from captioning.attempts import Attempt
from captioning.cells import Cell
from captioning.config import EngineConfig, ModelReference
from captioning.engines import base
from captioning.models import resolve
from captioning.questions import Questions, Wanted
from captioning.store import WorkItem
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.errors import EngineError, HolismError
from pipeline.shards import ShardReader
from pipeline.storage import Location

MAX_DEATHS = 5  # engine deaths in a row without an answer in between: then it is not the images


@dataclass(frozen=True)
class WorkerSpec:
    """All that an actor has to know: where the store is, what to ask, and what to ask it with."""

    store: Location
    cells: tuple[Cell, ...]
    reference: ModelReference  # every machine finds the model for itself
    engine: EngineConfig
    threads: int = 1


class CaptionWorker:
    """Answers work items. The engine starts with the first one."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.cells = {cell.id: cell for cell in spec.cells}
        self.log = CommitLog(spec.store)
        self.engine: base.Engine | None = None
        self._deaths = 0
        self._images: tuple[str, list[dict[str, Any]]] = ("", [])

    def work(self, item: WorkItem) -> Part:
        """Answer one item and commit its part. Raises `EngineError` if the engine does not start or keeps dying."""
        started = time.monotonic()
        attempt = Attempt.at(self.spec.store, item.part)
        while True:
            attempt.begin()
            if attempt.count > MAX_DEATHS and not attempt.tries:  # it never came as far as an image
                attempt.clear()
                raise EngineError(f"the engine died {attempt.count - 1} times before it answered an image")
            try:
                rows = self._rows(item, attempt)
            except base.EngineDiedError as error:
                self._bury(error)
            except (KeyboardInterrupt, SystemExit, HolismError):
                attempt.withdraw()
                raise
            else:
                break
        part = self._commit(item, rows, time.monotonic() - started)
        attempt.clear()
        return part

    def stop(self) -> None:
        """Release the engine."""
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.stop()

    def _bury(self, error: Exception) -> None:
        self.stop()
        self._deaths += 1
        if self._deaths >= MAX_DEATHS:
            raise EngineError(f"the engine died {self._deaths} times in a row: {' '.join(str(error).split())[:300]}")

    def _start(self) -> base.Engine:
        if self.engine is None:
            model = resolve(self.spec.reference, self.spec.engine)
            engine = base.make(self.spec.engine, model, self.spec.threads)
            engine.start()
            self.engine = engine
        return self.engine

    def _rows(self, item: WorkItem, attempt: Attempt) -> list[dict[str, Any]]:
        """The part's rows: asked for together, or image by image where somebody died before."""
        before = store.read_part(self.spec.store, item.part) if item.retry else []
        wanted = self._wanted(item, before)
        questions = Questions(self._start(), ShardReader({item.shard.name: item.shard.tar}), self._answers(item))
        if attempt.image_by_image:
            asked = self._one_by_one(questions, wanted, attempt)
        else:
            asked = questions.ask(wanted)
            self._deaths = 0
        return _merge(before, asked)

    def _one_by_one(self, questions: Questions, wanted: Sequence[Wanted], attempt: Attempt) -> list[dict[str, Any]]:
        """Images that were in hand at a death come last: the others must not wait for their fate."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for want in sorted(wanted, key=lambda want: attempt.tries.get(want.key, 0)):
            if attempt.poisonous(want.key):
                tries = attempt.tries[want.key]
                rows[want.key] = questions.give_up(want, f"the engine died {tries} times on this image")
                continue
            attempt.take(want.key)
            try:
                rows[want.key] = questions.ask([want])
            except (KeyboardInterrupt, SystemExit):
                attempt.tries[want.key] -= 1
                raise
            attempt.survived(want.key)
            self._deaths = 0
        return [row for want in wanted for row in rows[want.key]]

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
        committed = self.log.get(item.part) if item.retry else None
        errors = [row["error"] for row in rows if row["status"] != "ok"]
        return self.log.commit(
            item.part,
            schemas.encode(schemas.table(schemas.CAPTIONS, rows), schemas.CAPTIONS),
            rows=len(rows),
            errors=len(errors),
            cells=committed.cells if committed else item.cells,
            seconds=seconds,
            detail={
                "shard": item.shard.name,
                "start": item.start,
                "stop": item.stop,
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
