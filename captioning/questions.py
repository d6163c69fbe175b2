"""From images and cells to requests, and from answers to caption rows.

All questions about an image stay together. Chains go in rounds: the second round's questions are written with the
first round's answers. Whatever goes wrong with an image or a request becomes an error row, never an exception.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from captioning.cells import Cell
from captioning.engines.base import Answer, Engine, EngineDiedError, Request
from pipeline.errors import HolismError
from pipeline.identity import canonical, digest
from pipeline.shards import ShardReader

if TYPE_CHECKING:
    from PIL.Image import Image


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
    parent_id: str | None = None


class Questions:
    """Asks one engine about images of one shard. `known` are rows that chains may go on from."""

    def __init__(
        self, engine: Engine, reader: ShardReader, known: Mapping[tuple[str, str], Mapping[str, Any]]
    ) -> None:
        self.engine, self.reader = engine, reader
        self.known: dict[tuple[str, str], Mapping[str, Any]] = dict(known)

    def ask(self, wanted: Sequence[Wanted]) -> list[dict[str, Any]]:
        """One row for every (image, cell), image by image. Raises `EngineDiedError` if the engine does."""
        images: dict[str, Image | str] = {want.key: self._load(want) for want in wanted}
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for depth in sorted({cell.depth for want in wanted for cell in want.cells}):
            questions = [self._question(want, cell) for want in wanted for cell in want.cells if cell.depth == depth]
            answers = self._answer(questions, images)
            for question, answer in zip(questions, answers, strict=True):
                row = self._row(question, answer)
                rows[question.want.key, question.cell.id] = row
                if row["status"] == "ok":
                    self.known[question.want.key, question.cell.id] = row
        return [rows[want.key, cell.id] for want in wanted for cell in want.cells]

    def give_up(self, want: Wanted, reason: str) -> list[dict[str, Any]]:
        """Error rows for an image that is not asked about at all."""
        return [self._row(self._question(want, cell), Answer(None, error=reason)) for cell in want.cells]

    def _load(self, want: Wanted) -> Image | str:
        """The decoded image, scaled to the cap, or why there is none."""
        image = want.image
        data = self.reader.read(image["shard"], image["offset"], image["size"])
        try:
            return decode(data, want.cells[0].max_pixels)
        except Exception as error:  # decoders raise anything on broken bytes
            return f"the image cannot be decoded ({type(error).__name__}: {error})"

    def _question(self, want: Wanted, cell: Cell) -> Question:
        paraphrase = cell.paraphrase(want.image["image_id"])
        parent = self.known.get((want.key, cell.parent)) if cell.parent else None
        text = cell.prompt.render(paraphrase, parent["text"] if parent else None)
        return Question(want, cell, paraphrase, text, parent["caption_id"] if parent else None)

    def _answer(self, questions: Sequence[Question], images: Mapping[str, Image | str]) -> list[Answer]:
        """Answers in order; what cannot be asked gets its error without the engine."""
        answers: list[Answer | None] = [None] * len(questions)
        requests: dict[int, Request] = {}
        for index, question in enumerate(questions):
            image = images[question.want.key]
            if isinstance(image, str):
                answers[index] = Answer(None, error=image)
            elif question.cell.parent and question.parent_id is None:
                answers[index] = Answer(
                    None, error=f"there is no answer to {question.cell.prompt.after!r} to go on from"
                )
            else:
                requests[index] = _request(question, image)
        for index, answer in zip(requests, self._generate(list(requests.values())), strict=True):
            answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def _generate(self, requests: list[Request]) -> list[Answer]:
        """Ask for all at once; if that raises, image by image, so that one bad request costs only its own image."""
        if not requests:
            return []
        try:
            return self.engine.generate(requests)
        except (EngineDiedError, HolismError):
            raise
        except Exception as error:
            by_image: dict[str, list[Request]] = {}
            for request in requests:
                by_image.setdefault(request.image_id, []).append(request)
            if len(by_image) == 1:
                return [Answer(None, error=f"{type(error).__name__}: {error}")] * len(requests)
            found = {name: iter(self._generate(group)) for name, group in by_image.items()}
            return [next(found[request.image_id]) for request in requests]

    def _row(self, question: Question, answer: Answer) -> dict[str, Any]:
        cell, image = question.cell, question.want.image
        failed = answer.error is not None
        return {
            "caption_id": cell.caption_id(image["image_id"], question.text),
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
            "parent_id": question.parent_id,
            "model": cell.model.name,
            "revision": cell.model.revision,
            "engine": self.engine.name,
            "engine_version": self.engine.version,
            "sampling": canonical(cell.sampling),
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
        image, image_id, question.text, cell.max_tokens, cell.temperature, cell.top_p, cell.request_seed(image_id)
    )


def decode(data: bytes, max_pixels: int) -> Image:
    """Decode to RGB, with at most `max_pixels` pixels; transparency is shown on white."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        scale = min(1.0, math.sqrt(max_pixels / (opened.width * opened.height)))
        size = (max(1, int(opened.width * scale)), max(1, int(opened.height * scale)))
        if scale < 1:
            opened.draft("RGB", size)  # JPEG decodes at a coarser scale, at no loss for the size we need
        if opened.has_transparency_data:
            layer = opened.convert("RGBA")
            image = Image.new("RGB", layer.size, "white")
            image.paste(layer, mask=layer.getchannel("A"))
        else:
            image = opened.convert("RGB")
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0) if image.size != size else image
