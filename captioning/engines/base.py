"""What every engine is: start once, then answer requests as they come in, those of several callers together.

The caller hands in all questions about an image in one piece, image first: an engine that caches needs to look at
each image once. Answers come as futures, so work that is waiting keeps the engine full while other work is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from captioning.models import Model
from pipeline.errors import EngineError, HolismError

if TYPE_CHECKING:
    from PIL.Image import Image

PROBE_ID = "probe"  # image id of the grey picture that an engine is asked about before anything else


@dataclass(frozen=True)
class Request:
    """One question about one image (RGB). `image_id` names its content, for caches; `seed` is None if greedy.

    `json_schema` asks for an answer that is JSON of this form; an engine that can hold its model to it does.
    """

    image: Image
    image_id: str
    prompt: str
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """Text exactly as the model gave it, or the error that there was instead; token counts include the image's.

    `preprocess_seconds` went into making the model's input of the question and the image.
    """

    text: str | None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None  # stop | length
    error: str | None = None
    preprocess_seconds: float = 0.0


class EngineDiedError(Exception):
    """The engine is beyond use: it has to be started again. Any other exception of a future is its request's own."""


class Engine(Protocol):
    """A captioning engine. `name` and `version` go into the captions table.

    It answers `at_once` questions together: with fewer it is not full. One that is `metered` charges for each.
    """

    name: str
    version: str
    at_once: int
    metered: bool

    def start(self) -> None:
        """Load the model. Raises `EngineError` with one sentence if that fails."""

    def submit(self, requests: Sequence[Request]) -> list[Future[Answer]]:
        """Take in questions about one image; answers come in any order. Threads may call it at the same time.

        A future raises `EngineDiedError` if the engine died on it, and a `HolismError` if going on makes no sense.
        """

    def stop(self) -> None:
        """Release everything; what is not answered raises `EngineDiedError`. May be called at any time, and twice."""


def answers(engine: Engine, requests: Sequence[Request]) -> list[Answer]:
    """Submit image by image and wait for all: the whole of an engine in one call."""
    futures: list[Future[Answer]] = []
    start = 0
    for stop in range(1, len(requests) + 1):
        if stop == len(requests) or requests[stop].image_id != requests[start].image_id:
            futures += engine.submit(requests[start:stop])
            start = stop
    return [future.result() for future in futures]


def probe(engine: Engine) -> None:
    """Ask a fresh engine about a grey picture: what is left to fail here is the engine's fault, never an image's.

    Raises `EngineError` if it cannot answer, and `EngineDiedError` if it dies of it. A metered one is not asked.
    """
    from PIL import Image

    if engine.metered:
        return
    try:
        [future] = engine.submit([Request(Image.new("RGB", (64, 64), "grey"), PROBE_ID, "Describe the image.", 2)])
        future.result()
    except (HolismError, EngineDiedError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise EngineError(
            f"the model cannot be asked about a grey picture ({type(error).__name__}: {text})"
        ) from error


def load_error(model: Model, error: Exception) -> EngineError:
    """Why a model did not load, in one sentence."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    kind = "the model folder" if model.is_folder else "the hub model"
    return EngineError(
        f"{kind} {model.source} does not load ({type(error).__name__}: {reason}); expected an image-text-to-text "
        "model with config.json, weights, tokenizer, processor and chat template that this engine's version supports"
    )
