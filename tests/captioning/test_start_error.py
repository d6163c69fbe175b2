"""Why an engine did not start, in one sentence."""

from __future__ import annotations

import pytest

from captioning.config import EngineConfig, ModelReference
from captioning.engines.vllm import start_error
from captioning.models import resolve
from pipeline.config import build

# What vLLM 0.32 says: what comes before the reason, the reason, and what comes after it.
LENGTHS = {
    8: (
        "",
        "This model's maximum context length is 8 tokens. However, your prompt contains 26 input tokens",
        ". Please reduce the length of the input prompt. (parameter=input_tokens, value=26)",
    ),
    40: (
        "",
        "The decoder prompt (length 89) is longer than the maximum model length of 40",
        ". Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens.",
    ),
    9999: (
        "1 validation error for ModelConfig\n  Value error, ",
        "User-specified max_model_len (9999) is greater than the derived max_model_len (model_max_length=None)",
        ". To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1.",
    ),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_does_not_fit_is_the_reason_alone(length: int) -> None:
    config = build(EngineConfig, {"max_model_len": length})
    model = resolve(ModelReference(model="org/name", revision="a" * 40), config)
    before, reason, after = LENGTHS[length]
    text = str(start_error(config, model, ValueError(before + reason + after)))
    assert text.startswith(f"caption.engine.max_model_len is {length}, which does not fit org/name ({reason}); it has")
    assert "image-text-to-text" not in text
    assert "does not load (KeyError: 'x')" in str(start_error(config, model, KeyError("x")))
