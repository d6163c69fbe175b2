"""Files by content: digests of big ones, and the check that a file still is what its record says."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from pipeline.errors import StoreError
from pipeline.identity import ID_LENGTH
from pipeline.storage import Location

SAMPLES = 64  # blocks of a big file that are looked at
BLOCK = 65_536


def check(location: Location, data: Any, recorded: str, stage: str) -> None:
    """Raise `StoreError` if the bytes of a file have another digest than the one on record.

    `data` is bytes or any buffer; the message names the command of `stage` that makes the file again.
    """
    if sha256(data).hexdigest()[:ID_LENGTH] != recorded:
        raise StoreError(
            f"{location} is damaged: its content is not what was recorded when it was written; make it again: "
            f"holism {stage} CONFIG --retry-failed"
        )


def content_digest(files: Iterable[Location], below: Location | None = None) -> str:
    """Digest of files by name and content, in order: small ones whole, big ones by size and evenly spaced blocks.

    A name is the path `below` a folder, if one is given. A fingerprint of 16 GB of weights must not take a minute each
    time.
    """
    total = sha256()
    for file in files:
        size = file.size()
        name = file.name if below is None else file.uri.removeprefix(f"{below.uri}/")
        total.update(f"{name}\0{size}\0".encode())
        if size <= SAMPLES * BLOCK:
            total.update(file.read())
            continue
        for index in range(SAMPLES):
            total.update(file.read_range((size - BLOCK) * index // (SAMPLES - 1), BLOCK))
    return total.hexdigest()[:ID_LENGTH]
