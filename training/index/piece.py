"""A piece of the index: samples of one part of the bundles as columns, in memory or mapped from a file.

Shapes in names: R rows (samples), C captions, T tokens. The captions of row r are first[r] : first[r + 1], the tokens
of caption c are first_token[c] : first_token[c + 1], without start and end, as many as the text has.
"""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clip_tokens import clip_encoder
from pipeline.errors import StoreError
from training.slots import Slot

NO_SLOT = -1
COLUMNS = ("shard", "key", "image_id", "offset", "size", "captions")  # of the bundles table
ROWS_AT_ONCE = 8192  # of a table


@dataclass(frozen=True)
class Piece:
    """Samples that have a caption for at least one slot. `dropped` counts the rows that have none."""

    shard_names: tuple[str, ...]
    shard: np.ndarray  # (R,) index into shard_names
    key: pa.LargeStringArray  # (R,)
    image_id: pa.LargeStringArray  # (R,)
    offset: np.ndarray  # (R,) bytes, of the encoded image in its tar
    size: np.ndarray  # (R,) bytes
    first: np.ndarray  # (R + 1,)
    slot: np.ndarray  # (C,) index of the slot a caption may fill
    weight: np.ndarray  # (C,) chance to be drawn among those of its slot
    first_token: np.ndarray  # (C + 1,)
    token: np.ndarray  # (T,)
    dropped: int
    path: str | None = None  # of the file it is mapped from
    memory: mmap.mmap | None = None  # that it is mapped into

    def __len__(self) -> int:
        return len(self.offset)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For another process: the file, which it maps as well."""
        return (open_piece, (self.path,)) if self.path else super().__reduce_ex__(protocol)

    def captions(self, row: int) -> slice:
        """Where a row's captions are."""
        return slice(int(self.first[row]), int(self.first[row + 1]))

    def release(self) -> None:
        """Lets go of the file's pages that were read: they stay in the system's cache, and count to this process no
        more.

        Without it a process that reads at random ends with the whole index as its own.
        """
        if self.memory is not None:
            self.memory.madvise(mmap.MADV_DONTNEED)

    def tokens(self, caption: int) -> np.ndarray:
        """Of one caption."""
        return self.token[self.first_token[caption] : self.first_token[caption + 1]]


EMPTY = Piece(
    shard_names=(),
    shard=np.zeros(0, np.int32),
    key=pa.array([], pa.large_string()),
    image_id=pa.array([], pa.large_string()),
    offset=np.zeros(0, np.int64),
    size=np.zeros(0, np.int64),
    first=np.zeros(1, np.int64),
    slot=np.zeros(0, np.int16),
    weight=np.zeros(0, np.float32),
    first_token=np.zeros(1, np.int64),
    token=np.zeros(0, np.uint16),
    dropped=0,
)


def piece_of(table: pa.Table, slots: Sequence[Slot]) -> Piece:
    """The samples of a bundles table, in its order, with the captions that some slot wants."""
    return piece_of_batches(table.to_batches(ROWS_AT_ONCE), slots)


def piece_of_batches(batches: Iterable[pa.RecordBatch], slots: Sequence[Slot]) -> Piece:
    """As `piece_of`, batch by batch: a table of more than 2 GiB of text cannot be made one."""
    return joined([EMPTY, *(_piece_of(batch, slots) for batch in batches)])


def _piece_of(table: pa.RecordBatch, slots: Sequence[Slot]) -> Piece:
    lengths = pc.fill_null(pc.list_value_length(table["captions"]), 0).to_numpy()
    caption = pc.list_flatten(table["captions"])
    slot = _slot_of(caption, slots)
    row = np.repeat(np.arange(len(table)), lengths)[slot != NO_SLOT]
    count = np.bincount(row, minlength=len(table))
    kept = count > 0
    table, caption = table.filter(pa.array(kept)), caption.filter(pa.array(slot != NO_SLOT))
    shard = pc.dictionary_encode(table["shard"].cast(pa.string()))
    weight = pc.fill_null(caption.field("weight"), 1.0).to_numpy(zero_copy_only=False)
    first_token, token = _tokens_of(caption.field("text"), clip_encoder())
    return Piece(
        shard_names=tuple(shard.dictionary.to_pylist()),
        shard=shard.indices.to_numpy(),
        key=table["key"].cast(pa.large_string()),
        image_id=table["image_id"].cast(pa.large_string()),
        offset=table["offset"].to_numpy(),
        size=table["size"].to_numpy(),
        first=_starts(count[kept]),
        slot=slot[slot != NO_SLOT],
        weight=np.maximum(weight, 0),
        first_token=first_token,
        token=token,
        dropped=int((~kept).sum()),
    )


def _tokens_of(texts: pa.StringArray, encode: Callable[[str], list[int]]) -> tuple[np.ndarray, np.ndarray]:
    all_tokens, lengths = array("H"), []
    for text in texts.to_pylist():
        tokens = encode(text)
        lengths.append(len(tokens))
        all_tokens.extend(tokens)
    return _starts(np.array(lengths, dtype=np.int64)), np.frombuffer(all_tokens, dtype=np.uint16)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Where each of so many things begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _slot_of(caption: pa.StructArray, slots: Sequence[Slot]) -> np.ndarray:
    """The slot each caption may fill: the one that asks for its very granularity before one that takes any."""
    perspective, granularity = caption.field("perspective"), caption.field("granularity")
    usable = pc.and_(pc.is_valid(caption.field("text")), pc.not_equal(pc.utf8_length(caption.field("text")), 0))
    free = pc.fill_null(usable, False).to_numpy(zero_copy_only=False).copy()
    slot_of = np.full(len(caption), NO_SLOT, dtype=np.int16)
    for index, slot in sorted(enumerate(slots), key=lambda item: item[1].granularity is None):
        fits = pc.equal(perspective, slot.perspective)
        if slot.granularity is not None:
            fits = pc.and_(fits, pc.equal(granularity, slot.granularity))
        chosen = free & pc.fill_null(fits, False).to_numpy(zero_copy_only=False)
        slot_of[chosen] = index
        free &= ~chosen
    return slot_of


def joined(pieces: Sequence[Piece]) -> Piece:
    """Pieces one after the other, as one."""
    names = tuple(sorted({name for piece in pieces for name in piece.shard_names}))
    place = {name: index for index, name in enumerate(names)}
    shard = [np.array([place[name] for name in p.shard_names], dtype=np.int32)[p.shard] for p in pieces if len(p)]
    return Piece(
        shard_names=names,
        shard=np.concatenate([np.zeros(0, dtype=np.int32), *shard]),
        key=pa.concat_arrays([piece.key for piece in pieces]),
        image_id=pa.concat_arrays([piece.image_id for piece in pieces]),
        offset=np.concatenate([piece.offset for piece in pieces]),
        size=np.concatenate([piece.size for piece in pieces]),
        first=_starts(np.concatenate([np.diff(piece.first) for piece in pieces])),
        slot=np.concatenate([piece.slot for piece in pieces]),
        weight=np.concatenate([piece.weight for piece in pieces]),
        first_token=_starts(np.concatenate([np.diff(piece.first_token) for piece in pieces])),
        token=np.concatenate([piece.token for piece in pieces]),
        dropped=sum(piece.dropped for piece in pieces),
    )


def to_bytes(piece: Piece) -> bytes:
    """The piece as an Arrow file, captions as lists of the rows, tokens as lists of the captions."""
    token = pa.LargeListArray.from_arrays(pa.array(piece.first_token), pa.array(piece.token))
    caption = pa.StructArray.from_arrays(
        [pa.array(piece.slot), pa.array(piece.weight), token], ["slot", "weight", "token"]
    )
    columns = {
        "shard": pa.array(piece.shard),
        "key": piece.key,
        "image_id": piece.image_id,
        "offset": pa.array(piece.offset),
        "size": pa.array(piece.size),
        "captions": pa.LargeListArray.from_arrays(pa.array(piece.first), caption),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    return arrow_file(batch, {"shard_names": piece.shard_names, "dropped": piece.dropped})


def open_piece(path: str) -> Piece:
    """A piece on the memory of its file. Raises StoreError where that is damaged."""
    batch, facts, memory = open_arrow_file(path)
    captions = batch["captions"]
    slot, weight, token = captions.values.flatten()
    return Piece(
        shard_names=tuple(facts["shard_names"]),
        shard=batch["shard"].to_numpy(),
        key=batch["key"],
        image_id=batch["image_id"],
        offset=batch["offset"].to_numpy(),
        size=batch["size"].to_numpy(),
        first=captions.offsets.to_numpy(),
        slot=slot.to_numpy(),
        weight=weight.to_numpy(),
        first_token=token.offsets.to_numpy(),
        token=token.values.to_numpy(),
        dropped=facts["dropped"],
        path=path,
        memory=memory,
    )


def arrow_file(batch: pa.RecordBatch, facts: dict[str, Any]) -> bytes:
    """One batch as an Arrow file, with facts about it as JSON."""
    sink = pa.BufferOutputStream()
    batch = batch.replace_schema_metadata({"facts": json.dumps(facts)})
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue().to_pybytes())


def open_arrow_file(path: str) -> tuple[pa.RecordBatch, dict[str, Any], mmap.mmap]:
    """The batch, on the file's own memory, the facts, and that memory."""
    try:
        with open(path, "rb") as file:
            memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        memory.madvise(mmap.MADV_RANDOM)
        batch = pa.ipc.open_file(pa.py_buffer(memory)).get_batch(0)
        return batch, json.loads(batch.schema.metadata[b"facts"]), memory
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{path}, a part of the training index, cannot be read ({error}); delete its folder, it is made again"
        ) from error
