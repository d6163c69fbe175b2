"""A length that does not fit, in one sentence: where vLLM starts, and where it is asked."""

from __future__ import annotations

import pytest

from captioning.config import EngineConfig
from captioning.engines.lengths import length_fault
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
    before, reason, after = LENGTHS[length]
    config, error = build(EngineConfig, {"max_model_len": length}), ValueError(before + reason + after)
    text = f"caption.engine.max_model_len is {length}, which does not fit ({reason}); it has to hold a question"
    assert str(length_fault(config, error)).startswith(text)


def test_other_faults_stay_what_they_are() -> None:
    assert length_fault(EngineConfig(), KeyError("x")) is None
