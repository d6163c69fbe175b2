"""The blocks of shards: runs of pictures that lie together, some 8 MiB each.

They are what is read of a remote shard at once, and what the order in two levels moves (`training.shuffle`). Every
picture lies in one block whole, and blocks of one shard do not overlap, so who reads each block once reads no byte
twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.identity import digest
from training.bundles import Bundles

BYTES = 8 << 20


@dataclass(frozen=True, eq=False)
class Blocks:
    """The block of each sample, and K blocks: their spans in their shards, and how many samples they have."""

    block_S: np.ndarray  # (S,)
    start_K: np.ndarray  # (K,) bytes
    end_K: np.ndarray  # (K,)
    count_K: np.ndarray  # (K,)

    @property
    def bytes(self) -> int:
        """Of all blocks together."""
        return int((self.end_K - self.start_K).sum())

    @property
    def name(self) -> str:
        """Tells which samples lie together, and nothing of where: shards may be moved and renamed."""
        return digest(self.block_S.tobytes())[:12]

    def spans(self, samples: np.ndarray) -> np.ndarray:
        """(B, 2): first byte of each sample's block, and the one after its last."""
        block_B = self.block_S[samples]
        return np.stack([self.start_K[block_B], self.end_K[block_B]], axis=1)


def blocks_of(bundles: Bundles) -> Blocks:
    """The blocks that hold the samples, numbered by their first samples."""
    first_of_shard, count = _first_blocks(bundles)
    start_K, end_K = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    block_R = []  # of the rows of all pieces, one piece after the other
    for piece in bundles.pieces:
        first = np.array([first_of_shard[name] for name in piece.shard_names], np.int64)
        of_piece = first[piece.shard] + piece.offset // BYTES if len(piece) else np.zeros(0, np.int64)
        np.minimum.at(start_K, of_piece, piece.offset)
        np.maximum.at(end_K, of_piece, piece.offset + piece.size)
        block_R.append(of_piece.astype(np.int32))
        piece.release()
    first_row = np.cumsum([0, *map(len, bundles.pieces)])
    block_S = np.concatenate(block_R)[first_row[bundles.piece_S] + bundles.row_S]
    count_K = np.bincount(block_S, minlength=count)
    first_sample_K = np.full(count, len(block_S))
    np.minimum.at(first_sample_K, block_S, np.arange(len(block_S)))
    kept = np.argsort(first_sample_K, kind="stable")[: np.count_nonzero(count_K)]
    number_K = np.zeros(count, np.int32)
    number_K[kept] = np.arange(len(kept))
    return Blocks(number_K[block_S], start_K[kept], end_K[kept], count_K[kept])


def _first_blocks(bundles: Bundles) -> tuple[dict[str, int], int]:
    """The number of each shard's first block, and how many blocks there are."""
    length: dict[str, int] = {}
    for piece in bundles.pieces:
        last = np.zeros(len(piece.shard_names), np.int64)
        np.maximum.at(last, piece.shard, piece.offset)
        for name, offset in zip(piece.shard_names, last.tolist(), strict=True):
            length[name] = max(length.get(name, 0), offset // BYTES + 1)
    firsts = np.cumsum([0, *length.values()]).tolist()
    return dict(zip(length, firsts[:-1], strict=True)), firsts[-1]
