"""Identity of big files by content: a fingerprint of 16 GB of weights must not take a minute each time."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from pipeline.identity import ID_LENGTH
from pipeline.storage import Location

SAMPLES = 64  # blocks of a big file that are looked at
BLOCK = 65_536


def content_digest(files: Iterable[Location], below: Location | None = None) -> str:
    """Digest of files by name and content, in order: small ones whole, big ones by size and evenly spaced blocks.

    A name is the path `below` a folder, if one is given.
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
