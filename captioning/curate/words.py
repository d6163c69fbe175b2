"""What counts as a word: the unit of length limits, loops and similarity.

Chinese and Japanese are written without spaces; there every character counts as one word.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W_{_NO_SPACES}]+(?:['’\-][^\W_{_NO_SPACES}]+)*")


@lru_cache(maxsize=16_384)  # every gadget asks for the words of the same texts, shard by shard
def words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without punctuation."""
    return tuple(_WORD.findall(text.lower()))
