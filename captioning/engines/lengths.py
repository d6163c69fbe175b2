"""A length that does not fit, in one sentence: vLLM says it at length, and in settings that are not ours."""

from __future__ import annotations

import re

from captioning.config import EngineConfig

_LENGTH = re.compile(r"max_model_len|maximum (model|context) length")  # in vLLM's words
_ADVICE = re.compile(r"(?<=[.)]) (?:Please|Make sure|To allow|Try)\b")


def length_fault(config: EngineConfig, error: Exception) -> str | None:
    """The sentence; None if the error is about something else."""
    reason = " ".join(str(error).split())
    if not _LENGTH.search(reason):
        return None
    limit = config.max_model_len or "not set"
    reason = _ADVICE.split(reason.rpartition("Value error, ")[2])[0].rstrip(". ")
    return (
        f"caption.engine.max_model_len is {limit}, which does not fit ({reason}); it has to hold a question, its "
        "image and the answer, and no more than the model takes"
    )
