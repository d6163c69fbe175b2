"""The samples of all pieces in one order: by the pictures' ids, whatever shards and parts they lie in.

So shards that were renamed or packed again give the same batches. A picture of several rows is one sample with the
captions of all of them: copies would be each other's negatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.identity import canonical
from training.index.piece import EMPTY, Piece, joined

PREFIX = 8  # letters of an id that are sorted by at once
JOINED_AT_ONCE = 4096  # pieces of one row
Place = tuple[int, int]  # piece, row of it


def in_order(pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray, Piece]:
    """Of each sample its piece and its row there; and a further piece, the last, of pictures of several rows."""
    piece_S = np.repeat(np.arange(len(pieces), dtype=np.int32), [len(piece) for piece in pieces])
    row_S = np.concatenate([np.zeros(0, np.int32), *(np.arange(len(piece), dtype=np.int32) for piece in pieces)])
    prefix_S = np.concatenate([np.zeros(0, np.uint64), *map(_prefixes, pieces)])
    order = np.argsort(prefix_S, kind="stable")
    piece_S, row_S, prefix_S = piece_S[order], row_S[order], prefix_S[order]
    kept, merged, count = np.ones(len(order), dtype=bool), [EMPTY], 0
    for first, end in _runs(prefix_S):
        places = list(zip(piece_S[first:end].tolist(), row_S[first:end].tolist(), strict=True))
        different = _in_run(pieces, places)
        for at, copies in enumerate(different, start=first):
            piece_S[at], row_S[at] = copies[0]
            if len(copies) > 1:
                piece_S[at], row_S[at] = len(pieces), count
                merged.append(_merged(pieces, copies))
                count += 1
        kept[first + len(different) : end] = False
        if len(merged) >= JOINED_AT_ONCE:
            merged = [joined(merged)]
    return piece_S[kept], row_S[kept], joined(merged)


def _prefixes(piece: Piece) -> np.ndarray:
    """Numbers that sort as the first letters of the ids."""
    ids = piece.image_id
    padded = pc.binary_slice(pc.ascii_rpad(ids, PREFIX, "\0").cast(pa.large_binary()), 0, PREFIX)
    fixed = padded.cast(pa.binary(PREFIX))
    found = np.frombuffer(fixed.buffers()[1], dtype=">u8", count=len(fixed), offset=PREFIX * fixed.offset)
    piece.release()
    return found.astype(np.uint64)


def _runs(sorted_S: np.ndarray) -> Iterator[tuple[int, int]]:
    """Where several equal numbers follow each other."""
    same_S = np.concatenate([[False], sorted_S[1:] == sorted_S[:-1], [False]])
    firsts = np.flatnonzero(~same_S[:-1] & same_S[1:])
    ends = np.flatnonzero(same_S[:-1] & ~same_S[1:]) + 1
    yield from zip(firsts.tolist(), ends.tolist(), strict=True)


def _in_run(pieces: Sequence[Piece], places: Sequence[Place]) -> list[list[Place]]:
    """Places of which only the first letters of the ids are the same: in order, those of one picture together."""

    def image_id(place: Place) -> str:
        return str(pieces[place[0]].image_id[place[1]].as_py())

    of_pictures = groupby(sorted(places, key=image_id), key=image_id)
    return [sorted(copies, key=lambda place: _content(pieces, place)) for _, copies in of_pictures]


def _content(pieces: Sequence[Piece], place: Place) -> str:
    """What a row gives to training, as a text that sorts."""
    piece, captions = pieces[place[0]], pieces[place[0]].captions(place[1])
    tokens = [piece.tokens(caption).tolist() for caption in range(captions.start, captions.stop)]
    return canonical([tokens, piece.slot[captions].tolist(), piece.weight[captions].tolist()])


def _merged(pieces: Sequence[Piece], copies: Sequence[Place]) -> Piece:
    """One row with the captions of all, each text of a slot once, at its largest weight, lying where the first is."""
    weights: dict[tuple[int, tuple[int, ...]], float] = {}
    for number, row in copies:
        piece, captions = pieces[number], pieces[number].captions(row)
        for caption in range(captions.start, captions.stop):
            text = int(piece.slot[caption]), tuple(piece.tokens(caption).tolist())
            weights[text] = max(weights.get(text, 0.0), float(piece.weight[caption]))
    piece, row = pieces[copies[0][0]], copies[0][1]
    tokens = [tokens for _, tokens in weights]
    return Piece(
        shard_names=(piece.shard_names[piece.shard[row]],),
        shard=np.zeros(1, dtype=np.int32),
        key=piece.key.slice(row, 1),
        image_id=piece.image_id.slice(row, 1),
        offset=piece.offset[row : row + 1],
        size=piece.size[row : row + 1],
        first=np.array([0, len(weights)]),
        slot=np.array([slot for slot, _ in weights], dtype=np.int16),
        weight=np.array(list(weights.values()), dtype=np.float32),
        first_token=np.cumsum([0, *map(len, tokens)]),
        token=np.concatenate([np.array(ids, dtype=np.uint16) for ids in tokens]),
        dropped=0,
    )
