"""From images and cells to requests, and from answers to caption rows.

All questions about an image stay together, and every image goes its own way: a chain's next question leaves as soon
as its image's answers are in. Whatever goes wrong with an image or a request becomes an error row, never an exception.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from captioning.asking.cells import Cell
from captioning.engines.base import Answer, Engine, EngineDiedError, Request
from pipeline.errors import HolismError
from pipeline.identity import digest
from pipeline.shards import ShardReader

if TYPE_CHECKING:
    from PIL.Image import Image

AHEAD = 64  # images that are decoded and with the engine at a time
NOT_KNOWN = "there is no answer to {prompt!r} to go on from"


@dataclass(frozen=True)
class Wanted:
    """An image (a row of the images table) and the cells it is to be asked."""

    image: Mapping[str, Any]
    cells: tuple[Cell, ...]

    @property
    def key(self) -> str:
        """The row's identity."""
        return str(self.image["key"])


@dataclass(frozen=True)
class Question:
    """One cell's question about one image, in the wording that this image gets."""

    want: Wanted
    cell: Cell
    paraphrase: int
    text: str
    parent: Mapping[str, Any] | None = None

    @cached_property
    def caption_id(self) -> str:
        """Identity of its answer."""
        named = f"{self.text}\n{self.cell.prompt.id}" if self.cell.container else self.text
        return self.cell.caption_id(str(self.want.image["image_id"]), named)


class Questions:
    """Asks one engine about images of one shard.

    `known` are rows that are in the store already: those chains may go on from, by (image id, cell), and `same` those
    that answer the same for another configuration, by (image id, question). `answered` is told of questions that are
    done with, in any thread. `decode_seconds` and `preprocess_seconds` add up.
    """

    def __init__(
        self,
        engine: Engine,
        reader: ShardReader,
        known: Mapping[tuple[str, str], Mapping[str, Any]],
        same: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
        answered: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.engine, self.reader = engine, reader
        self.known, self.same, self.answered = known, same or {}, answered
        self.decode_seconds = self.preprocess_seconds = 0.0

    def ask(self, wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
        """One row for every (image, cell), image by image. Raises `EngineDiedError` if the engine does."""
        return asyncio.run(self._ask(wanted))

    async def _ask(self, wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
        room = asyncio.Semaphore(AHEAD)
        images = await asyncio.gather(*(self._image(want, room) for want in wanted))
        return [row for rows in images for row in rows]

    def refuse(self, want: Wanted, reason: str) -> list[dict[str, Any]]:
        """Error rows for an image that is not asked about at all."""
        return [self._row(self._question(want, cell, {}), Answer(None, error=reason)) for cell in want.cells]

    async def _image(self, want: Wanted, room: asyncio.Semaphore) -> list[dict[str, Any]]:
        """The rows of one image: round by round, as far as answers depend on answers."""
        rows: dict[str, dict[str, Any]] = {}
        async with room:
            image: Image | str | None = None
            for depth in sorted({cell.depth for cell in want.cells}):
                questions = [self._question(want, cell, rows) for cell in want.cells if cell.depth == depth]
                unasked = {question.cell.id: self._without_asking(question) for question in questions}
                rows |= {cell: row for cell, row in unasked.items() if row is not None}
                left = [question for question in questions if question.cell.id not in rows]
                self.answered(sum(question.cell.is_asked for question in questions) - len(left))
                if left and image is None:
                    image = self._load(want)
                for question, answer in zip(left, await self._answers(left, image), strict=True):
                    rows[question.cell.id] = self._row(question, answer)
        return [rows[cell.id] for cell in want.cells]

    def _load(self, want: Wanted) -> Image | str:
        """The decoded image, scaled to the cap, or why there is none."""
        started, image = time.perf_counter(), want.image
        data = self.reader.read(image["shard"], image["offset"], image["size"], image["image_id"])
        try:
            return decode(data, want.cells[0].max_pixels)
        except Exception as error:  # decoders raise anything on broken bytes
            return f"the image cannot be decoded ({type(error).__name__}: {error})"
        finally:
            self.decode_seconds += time.perf_counter() - started

    def _question(self, want: Wanted, cell: Cell, rows: Mapping[str, Mapping[str, Any]]) -> Question:
        paraphrase = cell.paraphrase(want.image["image_id"])
        parent = (
            rows.get(cell.parent) or self.known.get((want.image["image_id"], cell.parent)) if cell.parent else None
        )
        if parent is not None and parent["status"] != "ok":
            parent = None
        text = cell.asks.render(paraphrase, parent["text"] if parent else None)
        return Question(want, cell, paraphrase, text, parent)

    def _without_asking(self, question: Question) -> dict[str, Any] | None:
        """The row of a question that needs no engine: its answer is there already, or it cannot be asked."""
        cell = question.cell
        if cell.parent and question.parent is None:
            asked = cell.asks.after or cell.asks.id
            return self._row(question, Answer(None, error=NOT_KNOWN.format(prompt=asked)))
        row = self.same.get((question.want.image["image_id"], cell.question))
        if row is not None and row["caption_id"] == question.caption_id:
            return {**row, "cell": cell.id}
        if cell.container is not None and question.parent is not None:
            return self._row(question, _field(question.parent, cell.prompt.id))
        return None

    async def _answers(self, questions: Sequence[Question], image: Image | str | None) -> list[Answer]:
        """Answers in order; a request's own error is an answer, the engine's death is not."""
        if isinstance(image, str):
            self.answered(len(questions))
            return [Answer(None, error=image)] * len(questions)
        if not questions or image is None:
            return []
        futures = self.engine.submit([_request(question, image) for question in questions])
        await _finished(futures, self.answered)
        answers = [_answer(future) for future in futures]
        self.preprocess_seconds += sum(answer.preprocess_seconds for answer in answers)
        return answers

    def _row(self, question: Question, answer: Answer) -> dict[str, Any]:
        cell, image = question.cell, question.want.image
        failed = answer.error is not None
        return {
            "caption_id": question.caption_id,
            "shard": image["shard"],
            "key": image["key"],
            "image_id": image["image_id"],
            "cell": cell.id,
            "perspective": cell.prompt.perspective,
            "granularity": cell.prompt.granularity,
            "level": cell.prompt.level,
            "prompt_id": cell.prompt.id,
            "paraphrase": question.paraphrase,
            "prompt_hash": digest(question.text.encode()),
            "parent_id": question.parent["caption_id"] if question.parent else None,
            "model": cell.model.name,
            "revision": cell.model.revision,
            "engine": self.engine.name,
            "engine_version": self.engine.version,
            "sampling": cell.sampling_text,
            "sample_index": cell.sample_index,
            "seed": cell.request_seed(image["image_id"]),
            "text": None if failed else answer.text,
            "prompt_tokens": None if failed else answer.prompt_tokens,
            "cached_tokens": None if failed else answer.cached_tokens,
            "output_tokens": None if failed else answer.output_tokens,
            "finish_reason": answer.finish_reason,
            "status": "error" if failed else "ok",
            "error": answer.error,
            "created_at": datetime.now(UTC),
        }


def _request(question: Question, image: Image) -> Request:
    cell, image_id = question.cell, str(question.want.image["image_id"])
    return Request(
        image, image_id, question.text, cell.max_tokens, cell.temperature, cell.top_p, cell.request_seed(image_id),
        cell.asks.json_schema,
    )  # fmt: skip


def _field(container: Mapping[str, Any], name: str) -> Answer:
    """One field of a structured answer. Its tokens are on the account of the whole."""
    try:
        said = json.loads(container["text"])
        text = said[name]
    except ValueError:
        cut = " (it was cut off at the token budget)" if container["finish_reason"] == "length" else ""
        return Answer(None, error=f"the structured answer is not JSON{cut}")
    except (KeyError, TypeError):
        return Answer(None, error=f"the structured answer has no field {name!r}")
    if not isinstance(text, str):
        return Answer(None, error=f"the field {name!r} of the structured answer is not a text")
    return Answer(text, finish_reason="stop")


async def _finished(futures: Sequence[Future[Answer]], answered: Callable[[int], None]) -> None:
    """Wait until all are there, with one wake-up for all of them. Stopping to wait cancels the questions."""
    loop, woken, arrived = asyncio.get_running_loop(), asyncio.Event(), itertools.count(1)

    def count(_: Future[Answer]) -> None:
        answered(1)
        if next(arrived) == len(futures) and not loop.is_closed():
            loop.call_soon_threadsafe(woken.set)

    try:
        if all(future.done() for future in futures):
            answered(len(futures))
        else:
            for future in futures:
                future.add_done_callback(count)
            await woken.wait()
    finally:
        for future in futures:
            future.cancel()  # changes nothing about those that are done


def _answer(future: Future[Answer]) -> Answer:
    """The answer; a request's own error is one too. The engine's death is raised, and what makes no sense to go on."""
    try:
        return future.result()
    except (EngineDiedError, HolismError):
        raise
    except Exception as error:
        return Answer(None, error=f"{type(error).__name__}: {error}")


def decode(data: bytes, max_pixels: int) -> Image:
    """The picture with at most `max_pixels` pixels."""
    from PIL.Image import Resampling

    from pipeline import pictures

    def fit(width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, math.sqrt(max_pixels / (width * height)))
        return max(1, int(width * scale)), max(1, int(height * scale))

    image, full = pictures.decode(data, fit)
    size = fit(*full)
    return image if image.size == size else image.resize(size, Resampling.LANCZOS, reducing_gap=3.0)
