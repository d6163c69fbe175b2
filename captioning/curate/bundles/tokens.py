"""How many CLIP tokens a text has, as the context length counts them."""

from __future__ import annotations

from collections.abc import Callable

from captioning.curate.text_rules.words import with_few_marks
from pipeline.clip_tokens import TOKENIZER, clip_encoder

__all__ = ["TOKENIZER", "clip_token_counter"]

ENDS = 2  # start and end token


def clip_token_counter() -> Callable[[str], int]:
    """Counts the tokens of a text, the start and the end token included; not capped at any context length."""
    encode = clip_encoder()
    return lambda text: len(encode(with_few_marks(text))) + ENDS
