"""An engine without a model: text from a hash of what was asked, and faults on demand.

It shows that the machinery around engines loses nothing and doubles nothing, whatever happens.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from captioning.config import FakeEngineConfig
from captioning.engines.base import Answer, Request
from pipeline.identity import digest

WORDS = (
    "red", "blue", "small", "large", "old", "wooden", "bright", "quiet", "dog", "boat", "house", "tree", "lamp",
    "cloud", "beach", "street", "field", "stands", "lies", "glows", "near", "behind", "above", "beside", "under",
    "a", "the", "with", "and", "on", "of", "in",
)  # fmt: skip
IMAGE_TOKENS = 64


class FakeEngine:
    """Deterministic in (image id, prompt, sampling); independent of what else is in the batch."""

    name = "fake"
    version = "1"

    def __init__(self, config: FakeEngineConfig) -> None:
        self.config = config
        self._calls = 0

    def start(self) -> None:
        """Nothing to load."""

    def stop(self) -> None:
        """Nothing to release."""

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer, unless a fault was asked for."""
        self._calls += 1
        time.sleep(self.config.delay_seconds)
        images = {request.image_id for request in requests}
        if self._calls == self.config.die_at_call or images & set(self.config.die_on):
            os.kill(os.getpid(), signal.SIGKILL)
        if bad := sorted(images & set(self.config.raise_on)):
            raise ValueError(f"the fake engine cannot look at image {bad[0]}")
        seen: set[str] = set()
        return [self._answer(request, seen) for request in requests]

    def _answer(self, request: Request, seen: set[str]) -> Answer:
        sampling = [request.max_tokens, request.temperature, request.top_p, request.seed]
        number = int(digest([request.image_id, request.prompt, sampling]), 16)
        wanted = 4 + number % 12
        words = []
        for _ in range(min(wanted, request.max_tokens)):
            number, index = divmod(number, len(WORDS))
            words.append(WORDS[index])
        cached = IMAGE_TOKENS if request.image_id in seen else 0
        seen.add(request.image_id)
        complete = wanted <= request.max_tokens
        return Answer(
            text=" ".join(words).capitalize() + ("." if complete else ""),
            prompt_tokens=IMAGE_TOKENS + len(request.prompt.split()),
            cached_tokens=cached,
            output_tokens=len(words),
            finish_reason="stop" if complete else "length",
        )
