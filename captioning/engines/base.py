"""What every engine is: start once, then answer lists of (image, question) requests.

The caller hands in all questions about an image next to each other, image first: an engine that caches needs to
look at each image once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from captioning.models import Model
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Request:
    """One question about one image (RGB). `image_id` names its content, for caches; `seed` is None if greedy."""

    image: Image
    image_id: str
    prompt: str
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """Text exactly as the model gave it, or the error that there was instead; token counts include the image's."""

    text: str | None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    finish_reason: str | None = None  # stop | length
    error: str | None = None


class EngineDiedError(Exception):
    """The engine is beyond use: it has to be started again. Raised by `generate`; any other error is a request's."""


class Engine(Protocol):
    """A captioning engine. `name` and `version` go into the captions table."""

    name: str
    version: str

    def start(self) -> None:
        """Load the model. Raises `EngineError` with one sentence if that fails."""

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests, in their order."""

    def stop(self) -> None:
        """Release everything. May be called at any time, and twice."""


def load_error(model: Model, error: Exception) -> EngineError:
    """Why a model did not load, in one sentence."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    kind = "the model folder" if model.is_folder else "the hub model"
    return EngineError(
        f"{kind} {model.source} does not load ({type(error).__name__}: {reason}); expected an image-text-to-text "
        "model with config.json, weights, tokenizer, processor and chat template that this engine's version supports"
    )
