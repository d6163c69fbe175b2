"""An engine without a model: text from a hash of what was asked, and faults on demand.

It shows that the machinery around engines loses nothing and doubles nothing, whatever happens.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future

from captioning.config import FakeEngineConfig
from captioning.engines.base import PROBE_ID, Answer, Request
from pipeline.identity import digest

WORDS = (
    "red", "blue", "small", "large", "old", "wooden", "bright", "quiet", "dog", "boat", "house", "tree", "lamp",
    "cloud", "beach", "street", "field", "stands", "lies", "glows", "near", "behind", "above", "beside", "under",
    "a", "the", "with", "and", "on", "of", "in",
)  # fmt: skip
IMAGE_TOKENS = 64


class FakeEngine:
    """Deterministic in (image id, prompt, sampling); independent of what else is asked at the time."""

    name = "fake"
    version = "1"
    metered = False

    def __init__(self, config: FakeEngineConfig) -> None:
        self.config = config
        self.at_once = config.at_once
        self._calls = itertools.count(1)
        self._ledger = open(config.ledger, "a", encoding="utf8") if config.ledger else None  # noqa: SIM115

    def start(self) -> None:
        """There is nothing to load, but that may take its time."""
        time.sleep(self.config.start_seconds)

    def stop(self) -> None:
        """Nothing to release."""

    def submit(self, requests: Sequence[Request]) -> list[Future[Answer]]:
        """Answer at once, unless a fault or a delay was asked for."""
        images = {request.image_id for request in requests}
        probed = images == {PROBE_ID}  # which is no call and costs nothing
        if self.config.delay_seconds and not probed:  # sleep(0) is a long way round through the scheduler
            time.sleep(self.config.delay_seconds)
        if (not probed and self._call() == self.config.die_at_call) or images & set(self.config.die_on):
            os.kill(os.getpid(), signal.SIGKILL)
        futures = [Future[Answer]() for _ in requests]
        if bad := sorted(images & set(self.config.raise_on)):
            for future in futures:
                future.set_exception(ValueError(f"the fake engine cannot look at image {bad[0]}"))
            return futures
        seen: set[str] = set()
        for request, future in zip(requests, futures, strict=True):
            future.set_result(self._answer(request, seen))
        if not probed:
            self._pay(futures)
        return futures

    def _call(self) -> int:
        """The number of this call: of all processes together where they share a ledger."""
        if self._ledger is None or self.config.die_at_call is None:
            return next(self._calls)
        self._ledger.write(f"{os.getpid()} call\n")
        self._ledger.flush()
        with open(self._ledger.name, encoding="utf8") as lines:
            return sum(line.endswith("call\n") for line in lines)

    def _pay(self, futures: Sequence[Future[Answer]]) -> None:
        """Note what a real engine would have been paid for, even if a process dies afterwards."""
        if self._ledger is not None:
            tokens = sum(future.result().output_tokens for future in futures)
            self._ledger.write(f"{os.getpid()} {len(futures)} {tokens}\n")
            self._ledger.flush()

    def _answer(self, request: Request, seen: set[str]) -> Answer:
        sampling = [request.max_tokens, request.temperature, request.top_p, request.seed]
        number = int(digest([request.image_id, request.prompt, sampling]), 16)
        if request.json_schema:
            return self._json_answer(request, number)
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

    def _json_answer(self, request: Request, number: int) -> Answer:
        """Different words in every field that the schema asks for."""
        fields = list(request.json_schema["properties"]) if request.json_schema else []
        said = {
            field: f"{WORDS[(number + index) % len(WORDS)]} {WORDS[(number // 7 + index) % len(WORDS)]}."
            for index, field in enumerate(fields)
        }
        text, tokens = json.dumps(said), 4 * len(fields)
        if tokens > request.max_tokens:
            return Answer(text[: 4 * request.max_tokens], IMAGE_TOKENS, 0, request.max_tokens, "length")
        return Answer(text, IMAGE_TOKENS + len(request.prompt.split()), 0, tokens, "stop")
