"""Any server that speaks OpenAI's chat completions: vLLM's own, others of the kind, or a paid service.

Questions leave as they come, up to `concurrency` at a time; the client of the `openai` package repeats those that
meet a busy server or a lost connection, with growing, random waits or those that the server asks for.

vLLM's name for an image (`uuid`) is not sent. Other servers may refuse keys that they do not know, and a server
outlives a run: the same image under another `max_pixels` would be answered from the cache of the first.

The key is read from the environment variable that the configuration names, where the engine runs: on a Ray cluster
it has to be set on every machine that has actors. It is in no record, and cut out of whatever the server says.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from captioning.config import ServerConfig
from captioning.engines.base import Answer, EngineDiedError, Request
from captioning.models import Model
from pipeline.errors import EngineError

if TYPE_CHECKING:
    from PIL.Image import Image

NO_KEY = "EMPTY"  # servers without keys take any; the client insists on one
CHECK_SECONDS = 10.0  # for what a server answers without a model; questions have a timeout of their own
PNG_LEVEL = 1  # of compression: five times as fast as the default, for 13 % more bytes
UNVERSIONED = "server"  # the engine's version where the server does not say
KEY_REFUSED = (401, 403)
NOT_FOUND = 404
LISTED = 10  # models that an error names


class NoAnswerError(Exception):
    """The server did not answer this one question, or with something that is no caption."""


class OpenAIEngine:
    """One client of one server. All of it happens in an asyncio loop, in a thread of its own."""

    name = "openai"
    metered = True

    def __init__(self, config: ServerConfig, model: Model) -> None:
        self.config, self.model = config, model
        self.version = UNVERSIONED
        self.at_once = config.concurrency
        self._url = config.base_url
        self._key = ""
        self._lock = threading.Lock()  # of the loop, which is there from start to stop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Connect, and see that the server has the model. Raises `EngineError` if it does not answer or refuses."""
        started: Future[asyncio.AbstractEventLoop] = Future()
        with self._lock:
            self._key = _key(self.config.api_key_env)
            self._thread = threading.Thread(target=self._run, args=(started,), name="engine", daemon=True)
            self._thread.start()
            self._loop = started.result()

    def submit(self, requests: Sequence[Request]) -> list[Future[Answer]]:
        """Send questions about one image, which is encoded once. Cancelling a future takes its question back."""
        began = time.perf_counter()
        pictures = {request.image_id: request.image for request in requests}
        urls = {image_id: _data_url(image) for image_id, image in pictures.items()}
        seconds = (time.perf_counter() - began) / max(1, len(requests))
        with self._lock:
            if (loop := self._loop) is None:
                return [_failed(EngineDiedError("the engine is not running")) for _ in requests]
            questions = [self._ask(request, urls[request.image_id], seconds) for request in requests]
            return [asyncio.run_coroutine_threadsafe(question, loop) for question in questions]

    def stop(self) -> None:
        """Drop the connections, and with them what is under way."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(self._stopped.set)
            thread.join()

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        """Be there for questions until the engine is stopped."""
        from openai import AsyncOpenAI

        self._stopped = asyncio.Event()
        self._room = asyncio.Semaphore(self.config.concurrency)
        self._client = AsyncOpenAI(
            base_url=self.config.base_url,
            api_key=self._key or NO_KEY,
            timeout=self.config.timeout_seconds,
            max_retries=self.config.retries,
        )
        async with self._client:
            await self._check()
            started.set_result(asyncio.get_running_loop())
            await self._stopped.wait()
            questions = asyncio.all_tasks() - {asyncio.current_task()}
            for question in questions:
                question.cancel()
            await asyncio.gather(*questions, return_exceptions=True)

    async def _ask(self, request: Request, image_url: str, preprocess_seconds: float) -> Answer:
        import openai

        try:
            async with self._room:
                completion = await self._client.chat.completions.create(
                    model=self.model.source, **_question(request, image_url)
                )
        except openai.OpenAIError as error:
            raise self._meaning(error) from None  # the client's own error carries the request, and so the key
        except asyncio.CancelledError:
            if self._stopped.is_set():
                raise EngineDiedError("the engine was stopped") from None
            raise
        return self._answer(completion, preprocess_seconds)

    def _answer(self, completion: Any, preprocess_seconds: float) -> Answer:
        """The completion as the server gave it; proxies answer anything with 200, so it may be none."""
        if not getattr(completion, "choices", None):
            raise NoAnswerError(f"the server's answer is no completion: {self._quote(completion)}")
        choice = completion.choices[0]
        if choice.message.content is None:
            why = self._quote(choice.message.refusal or f"finish_reason: {choice.finish_reason}")
            raise NoAnswerError(f"the server's answer has no text ({why})")
        usage = completion.usage
        details = usage.prompt_tokens_details if usage else None
        return Answer(
            text=choice.message.content,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            cached_tokens=(details.cached_tokens or 0) if details else 0,
            output_tokens=usage.completion_tokens if usage else 0,
            finish_reason=choice.finish_reason,
            preprocess_seconds=preprocess_seconds,
        )

    def _meaning(self, error: Exception) -> Exception:
        """Of a failed question: its own error, or an `EngineError` if the next one would fail just so."""
        import openai

        if isinstance(error, openai.APIConnectionError):  # timeouts too
            tries = self.config.retries + 1
            return EngineError(
                f"the server at {self._url} no longer answers ({self._quote(error)} Tries: {tries}); start it again "
                "and run the same command, it goes on where it stopped"
            )
        if not isinstance(error, openai.APIStatusError):
            return NoAnswerError(f"the server's answer cannot be read ({type(error).__name__}: {self._quote(error)})")
        said = self._quote(error).removeprefix("Error code: ")
        if error.status_code in KEY_REFUSED:
            name = self.config.api_key_env
            refusal = f"refuses the key in {name}" if self._key else f"wants a key, and {name} is not set"
            return EngineError(
                f"the server at {self._url} {refusal} ({said}); set {name} to a key of this server where the engine "
                "runs, or name another variable in caption.engine.server.api_key_env"
            )
        if error.status_code == NOT_FOUND:
            return EngineError(
                f"the server at {self._url} has no chat completions of the model {self.model.source} ({said}); "
                "correct caption.engine.server.base_url, which mostly ends in /v1, or caption.models"
            )
        return NoAnswerError(f"the server answered {said}")

    async def _check(self) -> None:
        """See that the server is there, takes the key and has the model; a server may keep its list to itself."""
        import openai

        expected = "expected an OpenAI-compatible server; start it, or correct caption.engine.server.base_url"
        owner = None
        try:
            listed = await self._quick(self.config.retries).get("/models", cast_to=object)
        except openai.NotFoundError:
            pass
        except openai.APIConnectionError as error:
            raise EngineError(f"no server answers at {self._url} ({self._quote(error)}); {expected}") from None
        except openai.OpenAIError as error:
            meaning = self._meaning(error)
            if isinstance(meaning, EngineError):
                raise meaning from None
            raise EngineError(f"{self._url} has no list of models: {meaning}; {expected}") from None
        else:
            try:
                owners = {one["id"]: one.get("owned_by") for one in listed["data"]}
            except (AttributeError, KeyError, TypeError):
                answer = self._quote(listed)
                raise EngineError(f"{self._url} has no list of models: {answer}; {expected}") from None
            owner = self._owner(owners)
        self.version = await self._said_version(owner)

    def _owner(self, owners: Mapping[str, str | None]) -> str | None:
        """Who the server says that the model belongs to, which often is the server's own name."""
        if self.model.source in owners:
            return owners[self.model.source]
        names = [str(name) for name in owners]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        has = f"has {', '.join(names[:LISTED])}{more}" if names else "has none"
        raise EngineError(
            f"the server at {self._url} does not have the model {self.model.source}, it {self._quote(has)}; "
            "name one of these in caption.models or start the server with it"
        )

    async def _said_version(self, owner: str | None) -> str:
        """vLLM and some others tell it next to /v1."""
        import openai

        url = f"{self.config.base_url.removesuffix('/v1')}/version"
        try:
            said = await self._quick(retries=0).get(url, cast_to=object)
        except openai.OpenAIError:
            return UNVERSIONED
        version = said.get("version") if isinstance(said, dict) else None
        return self._quote(f"{owner or UNVERSIONED} {version}") if isinstance(version, str) else UNVERSIONED

    def _quick(self, retries: int) -> Any:
        """The client, for what a server answers at once."""
        timeout = min(CHECK_SECONDS, self.config.timeout_seconds)
        return self._client.with_options(max_retries=retries, timeout=timeout)

    def _quote(self, said: object) -> str:
        """What came from outside, on one line, short and without the key."""
        text = " ".join(str(said).split())
        return (text.replace(self._key, "***") if self._key else text)[:300]


def _question(request: Request, image_url: str) -> dict[str, Any]:
    """The body of one question: image first, so that servers may cache all that comes before the text."""
    content = [
        {"type": "image_url", "image_url": {"url": image_url}},
        {"type": "text", "text": request.prompt},
    ]
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": content}],
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
    }
    if request.seed is not None:
        body["seed"] = request.seed
    if request.json_schema is not None:
        named = {"name": "caption", "schema": dict(request.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body


def _data_url(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _failed(error: Exception) -> Future[Answer]:
    future: Future[Answer] = Future()
    future.set_exception(error)
    return future


def _key(variable: str) -> str:
    """The key, or nothing. Line ends come with files and are not meant; other strange characters are a mistake."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EngineError(f"{variable} holds characters that no key has; set it to the key of the server alone")
    return key
