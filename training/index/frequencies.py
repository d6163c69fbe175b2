"""In how many captions of the bundles each token occurs: what the token head weighs tokens by.

Counted once and kept beside the order of the samples. The counts follow from the captions alone, so all ranks and
machines have the same, however rows are cut into parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.storage import Location
from training.bundles import Bundles
from training.index.build import alone
from training.index.old import counts_file
from training.index.piece import Piece, arrow_file, open_arrow_file
from training.towers import VOCABULARY

AT_ONCE = 1 << 14  # captions
TOKEN_BITS = 16


@dataclass(frozen=True)
class TokenFrequencies:
    """How many captions there are, and how many of them hold each token (V,), be it once or several times.

    Captions are those of all rows of the bundles, each row's by itself.
    """

    captions: int
    holding_V: np.ndarray


def token_frequencies(bundles: Bundles) -> TokenFrequencies:
    """Of all captions that some slot takes; counted where that was not done before on this machine."""
    if bundles.path is None:
        return count(bundles)
    file = counts_file(Location(bundles.path))
    with alone(file.parent):
        try:
            return _read(file)
        except StoreError:  # it is not there, or damaged
            counted = count(bundles)
            batch = pa.RecordBatch.from_pydict({"holding": counted.holding_V})
            file.write(arrow_file(batch, {"captions": counted.captions}))
            return counted


def count(bundles: Bundles) -> TokenFrequencies:
    """Counts, a few captions at a time. The last piece, of pictures of several rows, repeats captions of others."""
    holding_V, captions = np.zeros(VOCABULARY, np.int64), 0
    for piece in bundles.pieces[:-1]:
        captions += len(piece.slot)
        for start in range(0, len(piece.slot), AT_ONCE):
            holding_V += _holding(piece, start, min(start + AT_ONCE, len(piece.slot)))
            piece.release()
    return TokenFrequencies(captions, holding_V)


def _holding(piece: Piece, start: int, end: int) -> np.ndarray:
    """How many captions of some hold each token (V,): each pair of caption and token counts once."""
    first = piece.first_token[start : end + 1]
    caption_T = np.repeat(np.arange(end - start, dtype=np.int64), np.diff(first))
    pair_T = np.sort(caption_T << TOKEN_BITS | piece.token[first[0] : first[-1]])
    different = pair_T[np.diff(pair_T, prepend=-1) != 0]
    return np.bincount(different & ((1 << TOKEN_BITS) - 1), minlength=VOCABULARY)


def _read(file: Location) -> TokenFrequencies:
    batch, facts, _ = open_arrow_file(file.uri)
    return TokenFrequencies(facts["captions"], batch["holding"].to_numpy().copy())
