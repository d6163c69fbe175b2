"""Content identities: the same content has the same name on every machine, in every run and in any order.

File positions break when a data set is downloaded again; hashes of content do not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
ID_LENGTH = 32  # hexadecimal digits; 128 bits make an accidental collision among billions of captions negligible


def digest(value: Any) -> str:
    """Hash plain JSON data (or bytes); the order of mapping keys does not matter, that of lists does."""
    data = value if isinstance(value, bytes) else canonical(value).encode()
    return hashlib.sha256(data).hexdigest()[:ID_LENGTH]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space: one text for one value."""
    return _JSON.encode(value)


def bag(values: Iterable[Any]) -> str:
    """Identity of a collection of plain JSON values, whatever their order: the sum of their hashes.

    The bags of pieces, put together by `union`, are the bag of the whole: so tables that were cut or named
    differently have the same identity.
    """
    return union(digest(value) for value in values)


def union(bags: Iterable[str]) -> str:
    """The bag of all that these bags hold."""
    return f"{sum(int(one, 16) for one in bags) % (1 << 4 * ID_LENGTH):0{ID_LENGTH}x}"


def image_id(data: bytes) -> str:
    """Identity of a picture: the hash of its stored (encoded) bytes."""
    return digest(data)


def caption_id(
    image: str,
    prompt: str,
    model: str,
    revision: str,
    sampling: Mapping[str, Any],
    max_pixels: int | None,
    sample_index: int = 0,
) -> str:
    """Identity of a caption: everything that was asked, of what, and how.

    `prompt` is the rendered text. `sample_index` counts samples of the same question; a regeneration round
    raises it. `max_pixels` is the image cap before the engine.
    """
    return digest([image, prompt, model, revision, dict(sampling), max_pixels, sample_index])


def fingerprint(stage: str, version: int, config: Any, inputs: Mapping[str, str]) -> str:
    """Identity of a stage's result: its semantic config, its hand-raised version and its inputs' digests."""
    return digest({"stage": stage, "version": version, "config": config, "inputs": dict(inputs)})
