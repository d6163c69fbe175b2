"""The bundles of all images as columns: where each picture lies, and which captions may fill which slot.

Everything is held in numpy and Arrow buffers. Loader processes do not get a copy: the columns are written once to a
file without a name, which they map into memory (`Bundles.__getstate__`).
"""

import json
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.reduction import DupFd
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.errors import MissingInputError, StoreError
from pipeline.identity import canonical
from pipeline.manifest import Manifest
from training.config import Slot

NO_SLOT = -1
COLUMNS = ("shard", "key", "image_id", "offset", "size", "captions")


@dataclass(frozen=True)
class Bundles:
    """One row per picture that has a caption for at least one slot, in the order of the pictures' ids.

    The captions of row i are first[i] : first[i + 1]. `dropped` counts the images left out.
    """

    shard_names: tuple[str, ...]
    shard: np.ndarray  # (rows,) index into shard_names
    key: pa.LargeStringArray  # (rows,)
    image_id: pa.LargeStringArray  # (rows,)
    offset: np.ndarray  # (rows,) bytes, of the encoded image in its tar
    size: np.ndarray  # (rows,) bytes
    first: np.ndarray  # (rows + 1,)
    slot: np.ndarray  # (captions,) index of the slot a caption may fill
    weight: np.ndarray  # (captions,) chance to be drawn among those of its slot
    text: pa.LargeStringArray  # (captions,)
    dropped: int

    def __len__(self) -> int:
        return len(self.offset)

    def __getstate__(self) -> dict[str, Any]:
        """For a process that is being started: the open file with the columns."""
        return {"file": DupFd(self.to_file().fileno())}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        number = state["file"].detach()
        mapped = pa.py_buffer(mmap.mmap(number, 0, prot=mmap.PROT_READ))
        os.close(number)
        self.__dict__.update(vars(_from_batch(pa.ipc.open_stream(mapped).read_next_batch())))

    def to_file(self) -> IO[bytes]:
        """The columns in a file without a name, written once. Raises StoreError where there is no room for it."""
        return self._file

    @cached_property
    def _file(self) -> IO[bytes]:
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as these bundles are)
            batch = _to_batch(self)
            with pa.ipc.new_stream(file, batch.schema) as stream:
                stream.write_batch(batch)
            file.flush()
        except OSError as error:
            raise StoreError(
                f"the captions for loader processes cannot be written to {tempfile.gettempdir()} ({error.strerror}); "
                "free space there, point TMPDIR at another folder, or set train.workers to 0"
            ) from error
        return file


def read_bundles(curate: Manifest, slots: Sequence[Slot]) -> Bundles:
    """All bundles of a curate manifest, with captions that no slot wants left out.

    Their order follows from what they hold and not from where it lies, so shards that were renamed or packed again
    give the same batches. Raises MissingInputError where no image has a caption for any of the slots.
    """
    parts = curate.select("bundles/")
    if not parts:
        raise MissingInputError("the curate manifest holds no bundles; run curate again: holism curate CONFIG")
    tables = [curate.read(part, schemas.BUNDLES, COLUMNS) for part in parts]
    bundles = in_order([columns_of(table, slots) for table in tables])
    if not len(bundles):
        captions = [pc.list_flatten(table["captions"]).combine_chunks() for table in tables]
        found = sorted({name for flat in captions for name in flat.field("perspective").unique().to_pylist()})
        raise MissingInputError(
            f"none of the {sum(map(len, tables))} bundles has a caption for train.slots "
            f"({', '.join(s.name for s in slots)}); they hold {', '.join(map(str, found)) or 'no captions at all'}"
        )
    return bundles


def columns_of(table: pa.Table, slots: Sequence[Slot]) -> Bundles:
    """The columns of a bundles table, in its order."""
    lengths = pc.fill_null(pc.list_value_length(table["captions"]), 0).to_numpy()
    flat = pc.list_flatten(table["captions"])
    caption = flat.combine_chunks() if isinstance(flat, pa.ChunkedArray) else flat
    slot = _slot_of(caption, slots)
    row = np.repeat(np.arange(len(table)), lengths)[slot != NO_SLOT]
    count = np.bincount(row, minlength=len(table))
    kept = count > 0
    table, caption = table.filter(pa.array(kept)), caption.filter(pa.array(slot != NO_SLOT))
    shard = pc.dictionary_encode(table["shard"].cast(pa.string()).combine_chunks())
    weight = pc.fill_null(caption.field("weight"), 1.0).to_numpy(zero_copy_only=False)
    return Bundles(
        shard_names=tuple(shard.dictionary.to_pylist()),
        shard=shard.indices.to_numpy(),
        key=table["key"].cast(pa.large_string()).combine_chunks(),
        image_id=table["image_id"].cast(pa.large_string()).combine_chunks(),
        offset=table["offset"].to_numpy(),
        size=table["size"].to_numpy(),
        first=np.concatenate([[0], np.cumsum(count[kept])]),
        slot=slot[slot != NO_SLOT],
        weight=np.maximum(weight, 0).astype(np.float64),
        text=caption.field("text").cast(pa.large_string()),
        dropped=int((~kept).sum()),
    )


def in_order(pieces: Sequence[Bundles]) -> Bundles:
    """The bundles of several tables as one, by image_id; a picture that is there twice has the captions of both."""
    names = sorted({name for piece in pieces for name in piece.shard_names})
    place = {name: index for index, name in enumerate(names)}
    shard = [np.array([place[name] for name in p.shard_names], dtype=np.int32)[p.shard] for p in pieces if len(p)]
    joined = Bundles(
        shard_names=tuple(names),
        shard=np.concatenate([np.zeros(0, dtype=np.int32), *shard]),
        key=pa.concat_arrays([piece.key for piece in pieces]),
        image_id=pa.concat_arrays([piece.image_id for piece in pieces]),
        offset=np.concatenate([piece.offset for piece in pieces]),
        size=np.concatenate([piece.size for piece in pieces]),
        first=np.concatenate([[0], np.cumsum(np.concatenate([np.diff(piece.first) for piece in pieces]))]),
        slot=np.concatenate([piece.slot for piece in pieces]),
        weight=np.concatenate([piece.weight for piece in pieces]),
        text=pa.concat_arrays([piece.text for piece in pieces]),
        dropped=sum(piece.dropped for piece in pieces),
    )
    return _merged(_rows(joined, _order(joined)))


def _merged(bundles: Bundles) -> Bundles:
    """A row for each picture, with the captions of all its rows, each text of a slot once.

    Copies would be each other's negatives.
    """
    is_new = np.ones(len(bundles), bool)
    is_new[1:] = pc.not_equal(bundles.image_id[1:], bundles.image_id[:-1]).to_numpy(zero_copy_only=False)
    if is_new.all():
        return bundles
    picture_R = np.cumsum(is_new) - 1
    picture_C = np.repeat(picture_R, np.diff(bundles.first))
    has_copies_C = (np.bincount(picture_R) > 1)[picture_C]
    among = np.flatnonzero(has_copies_C)  # the captions in question
    texts = pc.dictionary_encode(bundles.text.take(pa.array(among)))
    where = picture_C[among] * (int(bundles.slot.max(initial=0)) + 1) + bundles.slot[among]
    code = where * len(texts.dictionary) + texts.indices.to_numpy(zero_copy_only=False)
    _, first, same = np.unique(code, return_index=True, return_inverse=True)
    weight = bundles.weight.copy()
    np.maximum.at(weight, among[first][same], bundles.weight[among])
    kept = np.sort(np.concatenate([np.flatnonzero(~has_copies_C), among[first]]))
    rows = pa.array(np.flatnonzero(is_new))
    return replace(
        bundles,
        shard=bundles.shard[is_new],
        key=bundles.key.take(rows),
        image_id=bundles.image_id.take(rows),
        offset=bundles.offset[is_new],
        size=bundles.size[is_new],
        first=np.concatenate([[0], np.cumsum(np.bincount(picture_C[kept], minlength=int(is_new.sum())))]),
        slot=bundles.slot[kept],
        weight=weight[kept],
        text=bundles.text.take(pa.array(kept)),
    )


def _order(bundles: Bundles) -> np.ndarray:
    order = pc.sort_indices(bundles.image_id).to_numpy().astype(np.int64)
    sorted_ids = bundles.image_id.take(pa.array(order))
    repeats = pc.not_equal(sorted_ids[1:], sorted_ids[:-1]).to_numpy(zero_copy_only=False)
    starts = np.concatenate([[0], np.flatnonzero(repeats) + 1, [len(order)]])
    for index in np.flatnonzero(np.diff(starts) > 1):
        begin, end = starts[index], starts[index + 1]
        order[begin:end] = sorted(order[begin:end], key=lambda row: _content(bundles, row))
    return order


def _content(bundles: Bundles, row: int) -> str:
    """What a row gives to training, as a text that sorts."""
    captions = slice(int(bundles.first[row]), int(bundles.first[row + 1]))
    texts = bundles.text[captions].to_pylist()
    return canonical([texts, bundles.slot[captions].tolist(), bundles.weight[captions].tolist()])


def _rows(bundles: Bundles, order: np.ndarray) -> Bundles:
    """These rows, in this order."""
    count = np.diff(bundles.first)[order]
    first = np.concatenate([[0], np.cumsum(count)])
    caption = np.repeat(bundles.first[:-1][order] - first[:-1], count) + np.arange(first[-1])
    rows, captions = pa.array(order), pa.array(caption)
    return Bundles(
        bundles.shard_names,
        bundles.shard[order],
        bundles.key.take(rows),
        bundles.image_id.take(rows),
        bundles.offset[order],
        bundles.size[order],
        first,
        bundles.slot[caption],
        bundles.weight[caption],
        bundles.text.take(captions),
        bundles.dropped,
    )


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


def _to_batch(bundles: Bundles) -> pa.RecordBatch:
    """The columns as Arrow writes them, captions as lists of the rows."""
    caption = pa.StructArray.from_arrays(
        [pa.array(bundles.slot), pa.array(bundles.weight), bundles.text], ["slot", "weight", "text"]
    )
    columns = {
        "shard": pa.array(bundles.shard),
        "key": bundles.key,
        "image_id": bundles.image_id,
        "offset": pa.array(bundles.offset),
        "size": pa.array(bundles.size),
        "captions": pa.LargeListArray.from_arrays(pa.array(bundles.first), caption),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    return batch.replace_schema_metadata({"bundles": json.dumps([bundles.shard_names, bundles.dropped])})


def _from_batch(batch: pa.RecordBatch) -> Bundles:
    """The inverse, on the same memory."""
    names, dropped = json.loads(batch.schema.metadata[b"bundles"])
    captions = batch["captions"]
    slot, weight, text = captions.values.flatten()
    return Bundles(
        tuple(names),
        batch["shard"].to_numpy(),
        batch["key"],
        batch["image_id"],
        batch["offset"].to_numpy(),
        batch["size"].to_numpy(),
        captions.offsets.to_numpy(),
        slot.to_numpy(),
        weight.to_numpy(),
        text,
        dropped,
    )
