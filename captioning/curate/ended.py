"""Whether a text has an end: a full stop or the like, perhaps before a quotation mark or a bracket."""

from __future__ import annotations

import re

CLOSING = r"[\"'”’»)\]*]*"
_ENDED = re.compile(rf"[.!?…。！？]{CLOSING}$")


def is_ended(text: str) -> bool:
    """Whether the text ends as a sentence does."""
    if text[-1:] == "." and text[-2:-1].isalpha():  # nearly every sentence, and quicker
        return True
    return _ENDED.search(text.rstrip()) is not None
