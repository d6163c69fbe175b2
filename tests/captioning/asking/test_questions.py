"""Waiting for answers: late ones, failed ones, and those that nobody waits for any more."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from captioning import prompts
from captioning.asking import cells
from captioning.asking.questions import Questions, Wanted
from captioning.engines.base import Answer, EngineDiedError, Request
from captioning.models import resolve
from pipeline.errors import EngineError
from pipeline.ingest import shard_images, shard_names, shard_uris
from pipeline.shards import ShardReader
from tests.captioning import world

IMAGES = 3


class SlowEngine:
    """Answers nothing by itself: `answer` is called in a thread of its own once all questions are in."""

    name, version, at_once = "slow", "1", 1

    def __init__(self, questions: int) -> None:
        self.asked: list[tuple[Request, Future[Answer]]] = []
        self._questions = questions

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def submit(self, requests: Sequence[Request]) -> list[Future[Answer]]:
        asked = [(request, Future[Answer]()) for request in requests]
        self.asked += asked
        if len(self.asked) == self._questions:
            threading.Thread(target=self.answer).start()
        return [future for _, future in asked]

    def answer(self) -> None:
        for request, future in reversed(self.asked):
            future.set_result(Answer(f"{request.image_id} {request.max_tokens}"))


@pytest.fixture
def asking(tmp_path: Path) -> tuple[list[Wanted], ShardReader]:
    made = world.workspace(tmp_path, images=IMAGES)
    config, ingest = world.config(), made.manifests("ingest")[0]
    plan = cells.plan(config, prompts.load("paper"), [resolve(config.models[0], config.engine)])
    images: list[dict[str, Any]] = shard_images(ingest, shard_names(ingest)[0]).to_pylist()
    return [Wanted(image, tuple(plan)) for image in images], ShardReader(shard_uris(ingest))


def test_late_answers_in_any_order_come_to_their_questions(asking: tuple[list[Wanted], ShardReader]) -> None:
    wanted, reader = asking
    engine = SlowEngine(sum(len(want.cells) for want in wanted))
    rows = Questions(engine, reader, {}).ask(wanted)
    expected = [(want.key, f"{want.image['image_id']} {cell.max_tokens}") for want in wanted for cell in want.cells]
    assert [(row["key"], row["text"]) for row in rows] == expected


def test_an_error_of_one_request_is_its_own(asking: tuple[list[Wanted], ShardReader]) -> None:
    wanted, reader = asking
    engine = SlowEngine(len(wanted[0].cells))

    def answer() -> None:
        for number, (_, future) in enumerate(engine.asked):
            if number:
                future.set_result(Answer("good"))
            else:
                future.set_exception(ValueError("bad request"))

    engine.answer = answer  # type: ignore[method-assign]
    rows = Questions(engine, reader, {}).ask(wanted[:1])
    assert [row["error"] for row in rows] == ["ValueError: bad request"] + [None] * (len(rows) - 1)


@pytest.mark.parametrize(
    "error", [EngineDiedError("died"), EngineError("the key is refused")], ids=["died", "refused"]
)
def test_what_ends_the_work_takes_the_other_questions_back(
    asking: tuple[list[Wanted], ShardReader], error: Exception
) -> None:
    wanted, reader = asking
    engine = SlowEngine(sum(len(want.cells) for want in wanted))
    first = len(wanted[0].cells)

    def answer() -> None:
        for _, future in engine.asked[:first]:
            future.set_exception(error)

    engine.answer = answer  # type: ignore[method-assign]
    with pytest.raises(type(error), match=str(error)):
        Questions(engine, reader, {}).ask(wanted)
    assert len(engine.asked) > first
    assert all(future.cancelled() for _, future in engine.asked[first:])
