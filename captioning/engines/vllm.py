"""vLLM in this process, on a GPU or a CPU.

All questions about an image go in together, image first: the vision encoder runs once per image and the prefix
cache serves the rest. Images are named by their content's id (`uuid`), so nothing is hashed twice. Requests join the
running batch between two steps of the scheduler, those with long answers first, so the engine does not drain from one
chunk of work to the next.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import lru_cache
from itertools import count
from typing import Any

from captioning.config import EngineConfig
from captioning.engines.base import Answer, Request, load_error
from captioning.engines.lengths import length_fault
from captioning.engines.longest_first import LongestFirst
from captioning.engines.service import EngineThread
from captioning.models import Model
from pipeline.errors import EngineError

QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CONFIGURE_LOGGING": "1", "VLLM_NO_USAGE_STATS": "1"}
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; plenty for models that a CPU can serve
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # shares the cores with other processes
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no second process that imports everything again: starts in seconds
}
CPU_BLOCK_TOKENS = 32  # the default of 128 would cache nothing of a small model's image
_CHARACTER = r'([^"\\\x00-\x1f]|\\["\\/bfnrt])'
WARM_UP = 8  # questions
TURNS = 4096  # wordings that are kept rendered; those of chains are many
IMAGE = "image"  # vLLM's name of the modality
QUEUED = 4  # requests in the engine, as a multiple of those that it decodes together: enough to choose from


class VllmEngine(EngineThread):
    """One `vllm.LLM`. A CPU engine decodes with `threads` threads: more of them wait for each other when shared."""

    name = "vllm"

    def __init__(self, config: EngineConfig, model: Model, threads: int = 1) -> None:
        super().__init__()
        self.config, self.model, self.threads = config, model, threads
        self.version = _version()
        self.at_once = config.max_num_seqs
        self._llm: Any = None
        self._ids = count()
        self._running: dict[str, tuple[Future[Answer], float]] = {}

    @property
    def llm(self) -> Any:
        """The `vllm.LLM`, for its counters; None unless started."""
        return self._llm

    def _load(self) -> None:
        """10 to 90 s, nearly all of it imports and compilation."""
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        if self.model.is_folder:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))  # read once, when torch is imported
        import vllm
        from vllm.platforms import current_platform

        if on_cpu := bool(current_platform.is_cpu()):
            for key, value in ON_CPU.items():
                os.environ.setdefault(key, value)
        try:
            self._llm = vllm.LLM(**self._arguments(on_cpu))
        except Exception as error:
            raise self._start_error(error) from error
        if on_cpu:
            _use_threads(self.threads)
        self._order = LongestFirst(_cache_tokens(self._llm))
        self._render = _Renderer(self._llm, in_process=not vllm.envs.VLLM_ENABLE_V1_MULTIPROCESSING)
        try:
            self._warm_up()
        except Exception as error:
            raise self._start_error(error) from error

    def _start_error(self, error: Exception) -> EngineError:
        fault = length_fault(self.config, error)
        return EngineError(fault) if fault else load_error(self.model, error)

    def _warm_up(self) -> None:
        """Ask about a grey picture: what is set up at first use belongs to the start, and a model that cannot be asked
        about pictures is found here."""
        from PIL import Image

        request = Request(Image.new("RGB", (64, 64), "grey"), "grey", "Describe the image.", 2)
        for number in range(WARM_UP):
            self._llm.llm_engine.add_request(f"warm-up {number}", self._render(request), _parameters(request))
        while self._llm.llm_engine.has_unfinished_requests():
            self._llm.llm_engine.step()

    def _arguments(self, on_cpu: bool) -> dict[str, Any]:
        config = self.config
        arguments: dict[str, Any] = {
            "model": self.model.source,
            "seed": 0,
            "limit_mm_per_prompt": {"image": 1},
            "enable_prefix_caching": True,
            "max_num_seqs": config.max_num_seqs,
            "max_model_len": config.max_model_len,
            "tensor_parallel_size": config.tensor_parallel_size,
            "scheduling_policy": "priority",
            "disable_log_stats": True,
        }
        if not self.model.is_folder:
            arguments |= {"revision": self.model.revision, "tokenizer_revision": self.model.revision}
        if config.tensor_parallel_size > 1:
            arguments["distributed_executor_backend"] = "mp"  # the actor holds all the GPUs; Ray need not be asked
        if on_cpu:
            arguments |= {"dtype": "bfloat16", "enforce_eager": True, "block_size": CPU_BLOCK_TOKENS}
            arguments["enable_chunked_prefill"] = False  # vLLM 0.32 dies on a seeded request that it cuts in two
            arguments["mm_processor_cache_gb"] = 1  # an image's questions are neighbours: no need to keep it for long
        else:
            arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        return arguments | config.options

    def _busy(self) -> bool:
        return bool(self._running)

    def _step(self) -> None:
        """Fill the engine's queue, run its scheduler once, hand out what is finished."""
        for request, future in self.take(QUEUED * self.config.max_num_seqs - len(self._running)):
            self._add(request, future)
        if not self._running:
            return
        for output in self._llm.llm_engine.step():
            if output.finished:
                future, seconds = self._running.pop(output.request_id)
                self.answer(future, _answer(output, seconds))

    def _add(self, request: Request, future: Future[Answer]) -> None:
        """Render the question and queue it; what cannot be asked is an error of its own."""
        from vllm.v1.engine.exceptions import EngineDeadError

        started, name = time.perf_counter(), str(next(self._ids))
        try:
            rendered = self._render(request)
            rank = self._order.rank(request, len(rendered["prompt_token_ids"]))
            self._llm.llm_engine.add_request(name, rendered, _parameters(request), priority=rank)
        except EngineDeadError:
            raise
        except Exception as error:  # templates and processors of models raise anything
            fault = length_fault(self.config, error)
            self.answer(future, ValueError(fault) if fault else error)
        else:
            self._running[name] = (future, time.perf_counter() - started)

    def _unload(self) -> None:
        """Shut the engine's processes down."""
        llm, self._llm = self._llm, None
        self._running.clear()
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()


class _Renderer:
    """Writes one turn, image first, with the model's own chat template, and preprocesses the image.

    Template and tokenizer see each wording once, and in an engine of this process (`in_process`) the processor sees
    each image once: with a small model the three would take a fifth of the engine's time.
    """

    def __init__(self, llm: Any, *, in_process: bool) -> None:
        from vllm.renderers import ChatParams

        self._renderer = llm.renderer
        self._chat = ChatParams(
            chat_template=None,
            chat_template_content_format="auto",
            chat_template_kwargs={"add_generation_prompt": True, "continue_final_message": False, "tools": None},
        )
        # The chat template writes begin and end tokens itself.
        self._tokens = llm.renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
        self._turns: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._in_process = in_process
        self._last: tuple[Request, list[int], Any] | None = None  # what was asked, its turn's tokens, and the result

    def __call__(self, request: Request) -> Any:
        turn = self._turn(request)
        tokens: list[int] = turn["prompt_token_ids"]
        if self._last is not None and self._last[0].image is request.image:
            _, other, rendered = self._last
            if expanded := exchange_text(rendered["prompt_token_ids"], rendered["mm_placeholders"], other, tokens):
                return {**rendered, "prompt_token_ids": expanded, "arrival_time": time.time()}
        data, ids = {IMAGE: [request.image]}, {IMAGE: [request.image_id]}
        prompt = {**turn, "prompt_token_ids": list(tokens), "multi_modal_data": data, "multi_modal_uuids": ids}
        rendered = self._renderer.process_for_engine(prompt, time.time(), tok_params=self._tokens)
        if self._in_process:
            self._last = (request, tokens, rendered)
        return rendered

    def _turn(self, request: Request) -> dict[str, Any]:
        """The rendered turn with a place for its image: the same for all images."""
        turn = self._turns.pop(request.prompt, None) or self._render(request)
        self._turns[request.prompt] = turn
        if len(self._turns) > TURNS:
            self._turns.popitem(last=False)
        return turn

    def _render(self, request: Request) -> dict[str, Any]:
        image = {"type": "image_pil", "image_pil": request.image, "uuid": request.image_id}
        turn = {"role": "user", "content": [image, {"type": "text", "text": request.prompt}]}
        _, rendered = self._renderer.render_messages([turn], self._chat)
        (prompt,) = self._renderer.tokenize_prompts([rendered], self._tokens)
        if set(prompt["multi_modal_data"]) != {IMAGE}:
            raise ValueError(f"the model takes pictures as {sorted(prompt['multi_modal_data'])}, expected {IMAGE!r}")
        return {"prompt_token_ids": list(prompt["prompt_token_ids"])}


def exchange_text(
    expanded: Sequence[int], places: Mapping[str, Sequence[Any]], old: Sequence[int], new: Sequence[int]
) -> list[int] | None:
    """The tokens of another question about the same image: `expanded` is `old` with the image's tokens in place.

    Both turns begin alike, up to and with the image; only what follows is exchanged. None where that does not hold.
    """
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    text = len(old) - same
    begins = len(expanded) - text  # of the exchanged text, in the expanded turn
    if any(place.offset + place.length > begins for ranges in places.values() for place in ranges):
        return None
    if text and list(expanded[begins:]) != list(old[same:]):
        return None
    return [*expanded[:begins], *new[same:]]


def _parameters(request: Request) -> Any:
    pattern = json_pattern(request.json_schema) if request.json_schema else None
    return _sampling(request.temperature, request.top_p, request.seed, request.max_tokens, pattern)


@lru_cache(maxsize=64)  # vLLM copies them; greedy requests for the same prompt have the same
def _sampling(temperature: float, top_p: float, seed: int | None, max_tokens: int, pattern: str | None) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        max_tokens=max_tokens,
        structured_outputs=StructuredOutputsParams(regex=pattern) if pattern else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def json_pattern(schema: Mapping[str, Any]) -> str:
    """A regular expression of the JSON that fits a schema of plain texts, written as `json.dumps` writes it.

    Held to the schema alone, weak models lose themselves in the white space that JSON allows. vLLM's own switch
    against that allows none at all, which models are not used to: the demo VLM then leaves every field empty.
    """
    fields = []
    for name, about in schema["properties"].items():
        times = f"{{0,{about['maxLength']}}}" if "maxLength" in about else "*"
        fields.append(f'{re.escape(json.dumps(name))}: "{_CHARACTER}{times}"')
    return rf"\{{{', '.join(fields)}\}}"


def _answer(output: Any, preprocess_seconds: float) -> Answer:
    completion = output.outputs[0]
    return Answer(
        text=completion.text,
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        output_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
        preprocess_seconds=preprocess_seconds,
    )


def _cache_tokens(llm: Any) -> int:
    """How many tokens the prefix cache holds; an engine that does not say gets no groups of images."""
    cache = llm.llm_engine.vllm_config.cache_config
    return int(cache.num_gpu_blocks or 0) * int(cache.block_size)


def _version() -> str:
    """Known without an import; the build for CPUs is another distribution of the same package."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
