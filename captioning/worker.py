"""The actor: holds one engine and turns work items into committed parts, as many at a time as keep the engine full.

While one item's last answers are written out, the next one's questions are with the engine. The worker reads shards
itself, by reference; nothing but a short report goes back. It is plain Python: Ray runs it in actors, and without Ray
it runs in this process.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from captioning import store
from captioning.attempts import HOPELESS, TRIES, Attempt
from captioning.cells import question_of
from captioning.config import EngineConfig, ModelReference
from captioning.engines import base, choose
from captioning.models import on_worker
from captioning.questions import Questions, Wanted
from captioning.room import Room, Share
from captioning.shares import Shares
from captioning.store import WorkItem
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.errors import EngineError, HolismError
from pipeline.shards import ShardReader
from pipeline.storage import Location

IN_HAND = 8  # items that a worker is given; those the engine has no use for yet wait at its door
SHARDS = 2  # whose tables of images are kept: work comes shard by shard


@dataclass(frozen=True)
class WorkerSpec:
    """All that an actor has to know: where the store is, what to ask whom, and what to ask it with."""

    store: Location
    shares: Shares
    reference: ModelReference  # every machine finds the model for itself
    engine: EngineConfig
    threads: int = 1


class CaptionWorker:
    """Answers work items, from several threads at once. The engine starts with the first question."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.cells = {cell.id: cell for cell in spec.shares.cells}
        self.log = CommitLog(spec.store)
        self._room = Room()
        self._lock = threading.Lock()  # of all that follows
        self._engine: base.Engine | None = None
        self._started = self._stopped = False
        self._deaths = 0
        self._last_death: str | None = None  # since the last commit
        self._images: dict[str, list[dict[str, Any]]] = {}

    def work(self, item: WorkItem) -> list[Part]:
        """Answer one item and commit its part, or its images' parts if somebody died on it before.

        Raises `EngineError` if the engine does not start, or dies again and again without an answer.
        """
        while True:
            attempt = Attempt.at(self.spec.store, item.note)
            with self._room.alone() if attempt.count else self._together(item) as share:
                done = self._done(item)
                parts = [done] if done is not None else self._attempt(item, attempt, share)
            if parts is not None:
                return parts

    def _together(self, item: WorkItem) -> AbstractContextManager[Share]:
        questions = (item.stop - item.start) * sum(self.cells[cell].is_asked for cell in item.cells)
        return self._room.together(questions, self._make().at_once)

    def _attempt(self, item: WorkItem, attempt: Attempt, share: Share) -> list[Part] | None:
        """Its parts, or None if the engine died on it. A suspect's images are tried here too, one by one."""
        engine = self._make()
        attempt.begin()
        try:
            if attempt.count > 1 and not item.is_single:
                parts = self._one_by_one(item, attempt, share)
            else:
                parts = [self._answer(item, attempt, engine, share)]
        except base.EngineDiedError as error:
            self._bury(engine, error)
            return None
        except (KeyboardInterrupt, SystemExit, HolismError):
            attempt.withdraw()
            raise
        attempt.clear()
        return parts

    def _bury(self, engine: base.Engine, error: Exception) -> None:
        """Take the dead engine away, once, whoever finds it first."""
        with self._lock:
            if self._stopped:
                raise EngineError("the run was stopped")
            if self._engine is engine:
                engine.stop()
                self._engine, self._started = None, False
                self._deaths += 1
                self._last_death = str(error)
            if self._deaths >= HOPELESS:
                raise EngineError(f"the engine died {self._deaths} times without one answer in between: {error}")

    def stop(self) -> None:
        """Release the engine; work that is under way raises `EngineError`."""
        with self._lock:
            self._stopped = True
            engine, self._engine, self._started = self._engine, None, False
        if engine is not None:
            engine.stop()

    def _answer(self, item: WorkItem, attempt: Attempt, engine: base.Engine, share: Share) -> Part:
        started = time.monotonic()
        before = store.read_part(self.spec.store, item.part) if item.retry else []
        wanted = self._wanted(item, before)
        known, same = self._sources(item)
        questions = Questions(engine, ShardReader({item.shard.name: item.shard.tar}), known, same, share.answered)
        share.expect(sum(cell.is_asked for want in wanted for cell in want.cells))
        if item.is_single and attempt.count > TRIES:
            reason = f"{store.QUARANTINED}: the engine died {attempt.count - 1} times on this image"
            rows = [row for want in wanted for row in questions.give_up(want, reason)]
        else:
            self._start(engine)
            started = time.monotonic()
            rows = questions.ask(wanted)
            self._deaths = 0
        asked = time.monotonic()
        return self._commit(item, _merge(before, rows), questions, started, asked)

    def _one_by_one(self, item: WorkItem, attempt: Attempt, share: Share) -> list[Part]:
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
            made = self._alone(item.narrow(row), share)
            parts[made.name] = made
            if made.rows > made.errors:
                attempt.progress()
        return list(parts.values())

    def _alone(self, item: WorkItem, share: Share) -> Part:
        """The part of one image, tried until it is there or given up."""
        if (done := self._done(item)) is not None:
            return done
        while (parts := self._attempt(item, Attempt.at(self.spec.store, item.note), share)) is None:
            pass
        return parts[0]

    def _done(self, item: WorkItem) -> Part | None:
        """The part, if it was committed since the item was planned: by whoever died with it in hand."""
        part = None if item.retry else self.log.get(item.part)
        return part if part is not None and part.detail["stop"] == item.stop else None

    def _make(self) -> base.Engine:
        with self._lock:
            if self._stopped:
                raise EngineError("the run was stopped")
            if self._engine is None:
                model = on_worker(self.spec.reference, self.spec.engine, [cell.model for cell in self.cells.values()])
                self._engine = choose.make(self.spec.engine, model, self.spec.threads)
            return self._engine

    def _start(self, engine: base.Engine) -> None:
        with self._lock:
            if self._engine is not engine:
                raise base.EngineDiedError("the engine died under another piece of work")
            if not self._started:
                engine.start()
                self._started = True

    def _wanted(self, item: WorkItem, before: Sequence[Mapping[str, Any]]) -> list[Wanted]:
        """Which images of the range are asked which cells."""
        failed = {(row["key"], row["cell"]) for row in before if row["status"] != "ok"}
        failed |= {(key, whole) for key, cell in failed if (whole := self._whole(cell)) is not None}
        found = []
        for image in self._image_rows(item.shard.images)[item.start : item.stop]:
            if image["status"] != "ok":
                continue
            cells = [cell for cell in self.spec.shares.asked(image["image_id"]) if cell.id in item.cells]
            if item.retry:
                cells = [
                    cell for cell in cells if {(image["key"], cell.id), (image["key"], self._whole(cell.id))} & failed
                ]
            if cells:
                found.append(Wanted(image, tuple(cells)))
        return found

    def _whole(self, cell: str) -> str | None:
        """The structured answer that a field's cell takes its text from."""
        own = self.cells.get(cell)
        return own.parent if own is not None and own.container is not None else None

    def _sources(self, item: WorkItem) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], Any]]:
        """Rows of the store that this item's chains go on from, by (key, cell), and those that it need not ask for
        again, by (key, question)."""
        rows = [row for name in item.sources for row in store.read_part(self.spec.store, name)]
        good = [row for row in rows if row["status"] == "ok"]
        same = {(row["key"], question_of(row["cell"])): row for row in good}
        return {(row["key"], row["cell"]): row for row in good}, same

    def _image_rows(self, uri: str) -> list[dict[str, Any]]:
        with self._lock:
            if uri not in self._images:
                columns = ["shard", "key", "image_id", "offset", "size", "status"]
                rows = schemas.read(Location.of(uri), schemas.IMAGES, columns).to_pylist()
                while len(self._images) >= SHARDS:
                    del self._images[next(iter(self._images))]
                self._images[uri] = rows
            return self._images[uri]

    def _commit(
        self, item: WorkItem, rows: list[dict[str, Any]], questions: Questions, started: float, asked: float
    ) -> Part:
        """Commit the rows; a part that is replaced keeps its cells and its range, of which a retry sees a piece."""
        old = self.log.get(item.part) if item.retry else None
        death, self._last_death = self._last_death, None
        errors = [row["error"] for row in rows if row["status"] != "ok"]
        data = schemas.encode(schemas.table(schemas.CAPTIONS, rows), schemas.CAPTIONS)
        return self.log.commit(
            item.part,
            data,
            rows=len(rows),
            errors=len(errors),
            cells=old.cells if old else item.cells,
            seconds=time.monotonic() - started,
            detail={
                "shard": item.shard.name,
                "start": old.detail["start"] if old else item.start,
                "stop": old.detail["stop"] if old else item.stop,
                "figures": store.figures(rows),
                "first_error": errors[0] if errors else None,
                "engine_died": death,
                "worker": f"{socket.gethostname()}:{os.getpid()}",
                "began": round(time.time() - (time.monotonic() - started), 3),
                "decode_seconds": round(questions.decode_seconds, 3),
                "preprocess_seconds": round(questions.preprocess_seconds, 3),
                "encode_seconds": round(time.monotonic() - asked, 3),
            },
        )


def _merge(before: Sequence[dict[str, Any]], asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The old rows with the new ones in place of those that they answer again."""
    if not before:
        return list(asked)
    new = {(row["key"], row["cell"]): row for row in asked}
    return [new.get((row["key"], row["cell"]), row) for row in before]
