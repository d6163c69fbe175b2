"""How many different words and n-grams a corpus has, and how their number grows, in flat memory.

Of every n-gram its hash is looked at, and the `KEPT` smallest hashes are kept: a sample that can be merged and is the
same whatever the shards are (bottom-k, Cohen and Kaplan, 2007). Up to so many different n-grams the counts are exact;
above, the number is (KEPT − 1) / the largest kept hash as a share of all hashes, with a relative standard error of
1 / sqrt(KEPT − 2) = 0.8 %.

With each goes the smallest rank of an image that has it, where an image's rank is a hash of its content, not of its
place. So the vocabulary of the random sample of images with ranks below any bound is known, which is the vocabulary's
growth (Heaps' curve).
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from captioning.curate.selection.ngrams import Ngrams

KEPT = 16_384
BITS = 63
LEVELS = 16  # of growth: all images, half of them, a quarter, …
_ODD = np.uint64(0x9E3779B97F4A7C15)
SCHEMA = pa.schema([("hash", pa.int64()), ("rank", pa.int64())])


def rank(text: str) -> int:
    """Of an image by its image_id, or of a word: a hash, 63 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def hashes(ngrams: Ngrams, order: int) -> tuple[np.ndarray, np.ndarray]:
    """63-bit hashes of all n-grams of this order as they come, and the text each is in; the same in any process."""
    of_word = np.array([rank(word) for word in ngrams.vocabulary] or [0], np.int64).view(np.uint64)
    word_N = of_word[ngrams.word_N]
    size = max(len(word_N) - order + 1, 0)
    inside = ngrams.text_N[:size] == ngrams.text_N[order - 1 : order - 1 + size]
    hash_N = np.zeros(size, np.uint64)
    for place in range(order):
        hash_N = _mix(hash_N * _ODD + word_N[place : place + size])
    return (hash_N[inside] >> np.uint64(1)).astype(np.int64), ngrams.text_N[:size][inside]


def _mix(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: every bit of the input moves every bit of the output."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def sketch(hash_N: np.ndarray, rank_N: np.ndarray) -> pa.Table:
    """The smallest hashes, each once, with the smallest rank of their images. Sketches merge by this same function."""
    order = np.argsort(hash_N)
    hash_N, rank_N = hash_N[order], rank_N[order]
    starts = np.flatnonzero(np.diff(hash_N, prepend=-1))
    lowest = np.minimum.reduceat(rank_N, starts)[:KEPT] if len(starts) else rank_N
    return pa.table([pa.array(hash_N[starts[:KEPT]]), pa.array(lowest)], schema=SCHEMA)


def growth(kept: pa.Table) -> list[float]:
    """How many different n-grams the images have whose rank is below 2^-level, by level."""
    hash_N, rank_N = kept["hash"].to_numpy(), kept["rank"].to_numpy()
    scale = 1.0
    if len(hash_N) >= KEPT:
        scale = (KEPT - 1) / (float(hash_N[-1]) / 2**BITS) / len(hash_N)
    return [scale * int((rank_N < 2 ** (BITS - level)).sum()) for level in range(LEVELS)]
