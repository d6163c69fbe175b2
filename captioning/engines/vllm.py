"""vLLM in this process, on a GPU or a CPU.

All questions about an image go in together, image first: the vision encoder runs once per image and the prefix
cache serves the rest. Images are named by their content's id (`uuid`), so nothing is hashed twice.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

from captioning.config import EngineConfig
from captioning.engines.base import Answer, EngineDiedError, Request, load_error
from captioning.models import Model

QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CONFIGURE_LOGGING": "1", "VLLM_NO_USAGE_STATS": "1"}
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; plenty for models that a CPU can serve
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # shares the cores with whoever else is there
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no second process that imports everything again: starts in seconds
}
CPU_BLOCK_TOKENS = 32  # the default of 128 would cache nothing of a small model's image


class VllmEngine:
    """One `vllm.LLM`. A CPU engine decodes with `threads` threads: more of them wait for each other when shared."""

    name = "vllm"

    def __init__(self, config: EngineConfig, model: Model, threads: int = 1) -> None:
        self.config, self.model, self.threads = config, model, threads
        self.version = _version()
        self._llm: Any = None

    def start(self) -> None:
        """Load the model; 10 to 90 s, nearly all of it imports and compilation."""
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
            raise load_error(self.model, error) from error
        if on_cpu:
            _use_threads(self.threads)

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
            "disable_log_stats": True,
        }
        if not self.model.is_folder:
            arguments["revision"] = self.model.revision
        if config.tensor_parallel_size > 1:
            arguments["distributed_executor_backend"] = "mp"  # the actor holds all the GPUs; Ray need not be asked
        if on_cpu:
            arguments |= {"dtype": "bfloat16", "enforce_eager": True, "block_size": CPU_BLOCK_TOKENS}
            arguments["mm_processor_cache_gb"] = 1  # an image's questions are neighbours: no need to keep it for long
        else:
            arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
        return arguments | config.options

    def generate(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer all requests in one batch of the engine's own scheduler."""
        from vllm import SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError

        conversations = [_conversation(request) for request in requests]
        parameters = [
            SamplingParams(
                temperature=request.temperature, top_p=request.top_p, seed=request.seed, max_tokens=request.max_tokens
            )
            for request in requests
        ]
        try:
            outputs = self._llm.chat(conversations, parameters, use_tqdm=False)
        except EngineDeadError as error:
            raise EngineDiedError(str(error)) from error
        return [_answer(output) for output in outputs]

    def stop(self) -> None:
        """Shut the engine's processes down."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()


def _conversation(request: Request) -> list[dict[str, Any]]:
    """One turn, image first, which vLLM writes with the model's own chat template."""
    image = {"type": "image_pil", "image_pil": request.image, "uuid": request.image_id}
    return [{"role": "user", "content": [image, {"type": "text", "text": request.prompt}]}]


def _answer(output: Any) -> Answer:
    completion = output.outputs[0]
    return Answer(
        text=completion.text,
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_tokens=output.num_cached_tokens or 0,
        output_tokens=len(completion.token_ids),
        finish_reason=completion.finish_reason,
    )


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
