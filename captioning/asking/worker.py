"""The worker: holds one engine and turns work items into committed parts, as many at a time as keep the engine full.

While one item's last answers are written out, the next one's questions are with the engine. The worker reads shards
itself, by reference; nothing but a short report goes back. It is plain Python: Ray runs it in actors, and without Ray
it runs in this process. Somebody must live to see an engine die: an actor has its engine in its own process and is
started again by Ray, any other worker has it in a child process.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from captioning import store
from captioning.asking import attempts
from captioning.asking.attempts import TRIES, Attempt, Worker
from captioning.asking.cells import question_of
from captioning.asking.questions import Questions, Wanted
from captioning.asking.room import Room, Workload
from captioning.asking.shares import Shares
from captioning.config import EngineConfig, ModelReference
from captioning.engines import base, choose
from captioning.engines.keeper import HOPELESS, STARTS, EngineKeeper, does_not_start
from captioning.models import on_worker
from captioning.store import WorkItem
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.errors import EngineError
from pipeline.identity import bag
from pipeline.shards import ShardReader
from pipeline.storage import Location

AT_ONCE = 8  # items that a worker is given; those that the engine has no room for yet wait
ACTOR_ENDED = "the process of its actor ended (often the machine was out of memory)"
CRASHED = f"{store.QUARANTINED}: crashed the engine twice on its own"
SHARDS = 2  # whose tables of images are kept: work comes shard by shard


@dataclass(frozen=True)
class WorkerSpec:
    """All that an actor has to know: where the store is, what to ask whom, and what to ask it with."""

    store: Location
    shares: Shares
    reference: ModelReference  # every machine finds the model for itself
    engine: EngineConfig
    threads: int = 1
    run: str = field(default_factory=lambda: uuid.uuid4().hex)  # the same for all workers of a run


@dataclass(frozen=True)
class Actor:
    """Which actor of Ray's a worker is; the name stays when its process dies and it is started again."""

    name: str
    restarted: bool


class CaptionWorker:
    """Answers work items, from several threads at once. The engine starts with the first question."""

    def __init__(self, spec: WorkerSpec, actor: Actor | None = None) -> None:
        self.spec, self.actor = spec, actor
        self.cells = {cell.id: cell for cell in spec.shares.cells}
        self.log = CommitLog(spec.store)
        self._room = Room()
        death = ACTOR_ENDED if actor is not None and actor.restarted else None
        self._keeper = EngineKeeper(self._make, self._starting, death)
        self._name = Worker(spec.run, f"{socket.gethostname()}:{os.getpid()}")
        self._lock = threading.Lock()  # of what follows
        self._images: dict[str, list[dict[str, Any]]] = {}

    def work(self, item: WorkItem) -> list[Part]:
        """Answer one item and commit its part, or its images' parts if an engine or worker died on it before.

        Raises `EngineError` if the engine does not start, or dies again and again without an answer.
        """
        while True:
            attempt = self._attempt_at(item)
            with self._room.alone() if attempt.is_suspect else self._together(item) as workload:
                done = self._done(item)
                if done is not None:
                    attempt.clear()
                    return [done]
                if (parts := self._attempt(item, attempt, workload, alone=attempt.is_suspect)) is not None:
                    return parts

    def _together(self, item: WorkItem) -> AbstractContextManager[Workload]:
        questions = len(item.rows) * sum(self.cells[cell].is_asked for cell in item.cells)
        return self._room.together(questions, self._keeper.engine().at_once)

    def _attempt_at(self, item: WorkItem) -> Attempt:
        return self._attempt_at_name(item.note)

    def _attempt_at_name(self, name: str) -> Attempt:
        return Attempt.at(self.spec.store, name, self._name)

    def _attempt(self, item: WorkItem, attempt: Attempt, workload: Workload, *, alone: bool) -> list[Part] | None:
        """Its parts, or None if the engine died on it. A suspect's images are tried here too, one by one."""
        quarantined = item.is_single and attempt.deaths >= TRIES
        engine = self._keeper.engine() if quarantined else self._keeper.running()
        attempt.begin(alone=alone)
        try:
            if alone and not item.is_single:
                parts = self._one_by_one(item, attempt, workload)
            else:
                parts = [self._answer(item, attempt, engine, workload)]
        except base.EngineDiedError as error:
            self._keeper.remove(engine, error)  # raises if the run was stopped: then nothing crashed
            if alone:
                attempt.died()
            return None
        attempt.clear()
        return parts

    def stop(self) -> None:
        """Release the engine; work that is under way raises `EngineError`."""
        self._keeper.stop()

    def _answer(self, item: WorkItem, attempt: Attempt, engine: base.Engine, workload: Workload) -> Part:
        started = time.monotonic()
        wanted = self._wanted(item)
        known, same = self._sources(item)
        questions = Questions(engine, ShardReader({item.shard.name: item.shard.tar}), known, same, workload.answered)
        workload.expect(sum(cell.is_asked for want in wanted for cell in want.cells))
        if item.is_single and attempt.deaths >= TRIES:
            rows = [row for want in wanted for row in questions.refuse(want, CRASHED)]
        else:
            rows = questions.ask(wanted)
            self._keeper.answered()
        asked = time.monotonic()
        return self._commit(item, rows, questions, started, asked)

    def _one_by_one(self, item: WorkItem, attempt: Attempt, workload: Workload) -> list[Part]:
        """Every image is committed alone, so that a death costs no other image a second attempt."""
        if attempt.deaths >= HOPELESS:
            raise EngineError(
                f"{attempt.deaths} workers died on shard {item.shard.name} without one answer in between; "
                "see that the model fits into memory and that the engine runs at all"
            )
        parts: dict[str, Part] = {}
        for row in item.rows:
            made = self._alone(item.narrow(row), workload)
            parts[made.name] = made
            if made.rows > made.errors:
                attempt.progress()
        return list(parts.values())

    def _alone(self, item: WorkItem, workload: Workload) -> Part:
        """The part of one image, tried until it is there or quarantined."""
        if (done := self._done(item)) is not None:
            return done
        while (parts := self._attempt(item, self._attempt_at(item), workload, alone=True)) is None:
            pass
        return parts[0]

    def _done(self, item: WorkItem) -> Part | None:
        """The part, if it was committed since the item was planned: by a worker that died after that."""
        return self.log.get(item.part)

    def _make(self) -> base.Engine:
        model = on_worker(self.spec.reference, self.spec.engine, [cell.model for cell in self.cells.values()])
        make = choose.make_in_child if self.actor is None else choose.make
        return make(self.spec.engine, model, self.spec.threads)

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Note that the engine starts, if that can kill this process. Raises `EngineError` if it always does."""
        if self.actor is None:
            yield
            return
        attempt = self._attempt_at_name(f"{attempts.START}{self.actor.name}")
        if attempt.deaths >= STARTS:
            raise does_not_start(ACTOR_ENDED)
        attempt.begin(alone=True)
        try:
            yield
        finally:
            attempt.clear()

    def _wanted(self, item: WorkItem) -> list[Wanted]:
        """Which images of the item are asked which cells."""
        images, wanted = self._image_rows(item.shard), []
        for row in item.rows:
            asked = self.spec.shares.asked(images[row]["image_id"])
            wanted.append(Wanted(images[row], tuple(cell for cell in asked if cell.id in item.cells)))
        return wanted

    def _sources(self, item: WorkItem) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], Any]]:
        """Rows of the store that this item's chains go on from, by (image id, cell), and those that it need not ask
        for again, by (image id, question)."""
        rows = [row for name in item.sources for row in self._rows_of(name)]
        good = [row for row in rows if row["status"] == "ok" and row["cell"] not in item.cells]
        same = {(row["image_id"], question_of(row["cell"])): row for row in good}
        return {(row["image_id"], row["cell"]): row for row in good}, same

    def _rows_of(self, name: str) -> list[dict[str, Any]]:
        part = self.log.get(name)
        recorded = (part.digest, "caption") if part is not None else None
        rows: list[dict[str, Any]] = schemas.read(
            self.spec.store / name, schemas.CAPTIONS, recorded=recorded
        ).to_pylist()
        return rows

    def _image_rows(self, shard: store.Shard) -> list[dict[str, Any]]:
        with self._lock:
            uri = shard.images
            if uri not in self._images:
                columns = ["shard", "key", "image_id", "offset", "size", "status"]
                recorded = (shard.digest, "ingest")
                rows = schemas.read(Location.of(uri), schemas.IMAGES, columns, recorded=recorded).to_pylist()
                while len(self._images) >= SHARDS:
                    del self._images[next(iter(self._images))]
                self._images[uri] = rows
            return self._images[uri]

    def _commit(
        self, item: WorkItem, rows: list[dict[str, Any]], questions: Questions, started: float, asked: float
    ) -> Part:
        """Commit the rows."""
        death = self._keeper.take_last_death()
        errors = [row["error"] for row in rows if row["status"] != "ok"]
        data = schemas.encode(schemas.table(schemas.CAPTIONS, rows), schemas.CAPTIONS)
        return self.log.commit(
            item.part,
            data,
            rows=len(rows),
            errors=len(errors),
            cells=item.cells,
            seconds=time.monotonic() - started,
            content=bag([row["image_id"], row["cell"], row["status"], row["text"]] for row in rows),
            detail={
                "shard": item.shard.name,
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
