"""Sentences that come again and again over the corpus, in nearly the same words.

MinHash signatures of a text's word trigrams (the `rensa` library) are cut into bands; texts that agree in a whole band
share a bucket (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, 3.4). Buckets are counted in images, so what
one image's captions have in common counts once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import chain

import numpy as np
import pyarrow as pa

from captioning.curate.draft import Draft
from pipeline.identity import digest

PERMUTATIONS = 64
SHINGLE = 3  # words
SEED = 1
BLOCK = 2048  # texts
MERGE_MEMORY = "1GB"  # more goes to disk
_PRIME = np.uint64(0x100000001B3)  # FNV-1a
_BASIS = 0xCBF29CE484222325
SCHEMA = pa.schema([("bucket", pa.uint64()), ("images", pa.int64())])


@dataclass(frozen=True)
class NearDuplicates:
    """Counts images by bucket. The merged result are the buckets that more than `max_images` images share."""

    max_images: int
    similarity: float
    min_words: int

    name = "near_duplicates"

    @cached_property
    def digest(self) -> str:
        """Of what decides a text's buckets."""
        return digest([self.similarity, self.min_words, PERMUTATIONS, SHINGLE, SEED])

    def of_shard(self, draft: Draft) -> pa.Table:
        """How many images of the shard each bucket has, over the open rows."""
        rows = self.rows(draft)
        buckets = self.buckets([draft.words(row) for row in rows])
        captions, numbers = draft.columns["caption_id"], dict[str, int]()  # copies of a picture have the same captions
        image_of = {
            row: numbers.setdefault(captions[image.start], number)
            for number, image in enumerate(draft.images)
            for row in image
        }
        images = np.repeat(np.array([image_of[row] for row in rows], np.int64), buckets.shape[1])
        order = np.lexsort((images, buckets.ravel()))
        bucket, image = buckets.ravel()[order], images[order]
        starts = _changes(bucket)
        first = starts | _changes(image)  # an image counts once in a bucket
        counts = np.add.reduceat(first.astype(np.int64), np.flatnonzero(starts)) if len(bucket) else bucket
        return pa.table([pa.array(bucket[starts]), pa.array(counts)], schema=SCHEMA)

    def merge(self, tables: Iterator[pa.Table]) -> Mapping[int, int]:
        """Images by bucket, for the buckets of too many images."""
        import duckdb

        batches = (batch for table in tables for batch in table.to_batches())
        with tempfile.TemporaryDirectory() as spill, duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = '{MERGE_MEMORY}'")
            connection.execute("SET temp_directory = ?", [spill])
            connection.register("counts", pa.RecordBatchReader.from_batches(SCHEMA, batches))
            rows = connection.execute(
                "SELECT bucket, sum(images)::BIGINT AS n FROM counts GROUP BY bucket HAVING n > ? ORDER BY bucket",
                [self.max_images],
            ).fetchall()
        return dict(rows)

    def rows(self, draft: Draft) -> list[int]:
        """The open rows that are long enough: short answers repeat by nature."""
        return [row for row in draft.open_rows() if len(draft.words(row)) >= self.min_words]

    def buckets(self, texts: Sequence[Sequence[str]]) -> np.ndarray:
        """The buckets of each text, given as its words, three at least: (texts, bands), unsigned 64 bit."""
        bands, width = self.bands
        signature = _signatures(texts)[:, : bands * width].reshape(len(texts), bands, width)
        keys = np.broadcast_to(np.uint64(_BASIS) + np.arange(bands, dtype=np.uint64), signature.shape[:2])
        for column in range(width):
            keys = (keys ^ signature[:, :, column]) * _PRIME
        return keys

    @cached_property
    def bands(self) -> tuple[int, int]:
        """Number and width of the bands whose threshold (1/bands)^(1/width) comes nearest to the similarity."""
        fitting = [(PERMUTATIONS // width, width) for width in range(1, PERMUTATIONS + 1)]
        return min(fitting, key=lambda band: abs((1 / band[0]) ** (1 / band[1]) - self.similarity))


def _changes(values: np.ndarray) -> np.ndarray:
    """Where a value differs from the one before it; the first always does."""
    return np.concatenate([np.ones(min(1, len(values)), bool), values[1:] != values[:-1]])


def _signatures(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """MinHash signatures, (texts, permutations); block by block, as the library hands out lists of numbers."""
    from rensa import RMinHash

    signatures = np.empty((len(texts), PERMUTATIONS), np.uint64)
    hashes = _WordHashes()
    for start in range(0, len(texts), BLOCK):
        block = signatures[start : start + BLOCK]
        shingles, starts = _shingles(texts[start : start + BLOCK], hashes)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(shingles, starts, PERMUTATIONS, SEED).to_rows()
        block[:] = np.fromiter(chain.from_iterable(rows), np.uint64, count=block.size).reshape(block.shape)
    return signatures


class _WordHashes(dict[str, int]):
    """A number for every word, the same in every process; a vocabulary is small beside its texts."""

    def __missing__(self, word: str) -> int:
        self[word] = number = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
        return number


def _shingles(texts: Sequence[Sequence[str]], known: _WordHashes) -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all texts' shingles, one text behind the other, and where each text begins, and the last ends."""
    lengths = np.fromiter(map(len, texts), np.int64, count=len(texts))
    ends = lengths.cumsum()
    words = np.fromiter(map(known.__getitem__, chain.from_iterable(texts)), np.uint64, count=ends[-1])
    hashes = np.full(ends[-1] - SHINGLE + 1, _BASIS, np.uint64)
    for place in range(SHINGLE):
        hashes = (hashes ^ words[place : place + len(hashes)]) * _PRIME
    inside = np.ones(ends[-1], bool)  # whether a shingle begins here and ends in the same text
    for place in range(1, SHINGLE):
        inside[ends - place] = False
    starts = np.concatenate([[0], (lengths - SHINGLE + 1).cumsum()])
    return hashes[inside[: len(hashes)]], starts.astype(np.uint64)
