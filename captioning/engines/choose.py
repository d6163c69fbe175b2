"""Which engine a configuration means on this machine, and making it."""

from __future__ import annotations

import importlib.util

from captioning.config import EngineConfig
from captioning.engines.base import Engine
from captioning.engines.child import ChildEngine
from captioning.models import Model
from pipeline.errors import EngineError


def engine_kind(config: EngineConfig) -> str:
    """The kind of engine that is meant on this machine."""
    if config.kind != "auto":
        return config.kind
    return "vllm" if importlib.util.find_spec("vllm") else "transformers"


def require_installed(config: EngineConfig) -> None:
    """Raise `EngineError` where the engine's package is not there; nothing is imported."""
    kind = engine_kind(config)
    if kind == "vllm" and importlib.util.find_spec("vllm") is None:
        raise EngineError(
            "vLLM is not installed; install it (make install ENGINE=gpu or cpu) or set "
            "caption.engine.kind=transformers"
        )
    if kind == "openai" and importlib.util.find_spec("openai") is None:
        raise EngineError(
            "the openai package, which talks to servers, is not installed in this environment; install it "
            "(pip install openai) or choose another caption.engine.kind"
        )


def make_in_child(config: EngineConfig, model: Model, threads: int = 1) -> Engine:
    """Make the engine (not started) that is to run in a child of this process; clients of servers run here."""
    engine = make(config, model, threads)
    if engine_kind(config) == "openai":
        return engine
    return ChildEngine(config, model, threads, like=engine)


def make(config: EngineConfig, model: Model, threads: int = 1) -> Engine:
    """Make the engine (not started) that is to run in this process. `threads` bounds what it uses of a CPU."""
    kind = engine_kind(config)
    require_installed(config)
    if kind == "fake":
        from captioning.engines.fake import FakeEngine

        return FakeEngine(config.fake)
    if kind == "vllm":
        from captioning.engines.vllm import VllmEngine

        return VllmEngine(config, model, threads)
    if kind == "openai":
        from captioning.engines.openai import OpenAIEngine

        return OpenAIEngine(config.server, model)
    from captioning.engines.transformers import TransformersEngine

    return TransformersEngine(config, model, threads)
