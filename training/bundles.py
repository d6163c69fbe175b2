"""The bundles of all images as columns: where each picture lies, and which captions may fill which slot.

Everything is held in numpy and Arrow buffers, so that forked loader processes share it instead of copying it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.errors import MissingInputError
from pipeline.manifest import Manifest
from training.config import Slot

NO_SLOT = -1


@dataclass(frozen=True)
class Bundles:
    """One row per image that has a caption for at least one slot.

    The captions of row i are first[i] : first[i + 1]. `dropped` counts the images left out.
    """

    shard_names: tuple[str, ...]
    shard: np.ndarray  # (rows,) index into shard_names
    key: pa.LargeStringArray  # (rows,)
    offset: np.ndarray  # (rows,) bytes, of the encoded image in its tar
    size: np.ndarray  # (rows,) bytes
    first: np.ndarray  # (rows + 1,)
    slot: np.ndarray  # (captions,) index of the slot a caption may fill
    weight: np.ndarray  # (captions,) chance to be drawn among those of its slot
    text: pa.LargeStringArray  # (captions,)
    dropped: int

    def __len__(self) -> int:
        return len(self.offset)


def read_bundles(curate: Manifest, slots: Sequence[Slot]) -> Bundles:
    """All bundles of a curate manifest, in the order of their parts' names, with captions that no slot wants left out.

    Raises MissingInputError where no image has a caption for any of the slots.
    """
    columns = ["shard", "key", "offset", "size", "captions"]
    parts = curate.select("bundles/")
    if not parts:
        raise MissingInputError("the curate manifest holds no bundles; run curate again: holism curate CONFIG")
    table = pa.concat_tables([schemas.read(curate.location(part), schemas.BUNDLES, columns) for part in parts])
    bundles = columns_of(table, slots)
    if not len(bundles):
        found = sorted(set(pc.list_flatten(table["captions"]).combine_chunks().field("perspective").to_pylist()))
        raise MissingInputError(
            f"none of the {len(table)} bundles has a caption for train.slots ({', '.join(s.name for s in slots)}); "
            f"they hold {', '.join(map(str, found)) or 'no captions at all'}"
        )
    return bundles


def columns_of(table: pa.Table, slots: Sequence[Slot]) -> Bundles:
    """The columns of a bundles table."""
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
        offset=table["offset"].to_numpy(),
        size=table["size"].to_numpy(),
        first=np.concatenate([[0], np.cumsum(count[kept])]),
        slot=slot[slot != NO_SLOT],
        weight=np.maximum(weight, 0).astype(np.float64),
        text=caption.field("text").cast(pa.large_string()),
        dropped=int((~kept).sum()),
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
