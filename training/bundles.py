"""The bundles of all images as training samples: where each picture lies, and which captions may fill which slot.

They are an index on disk (`training.index`), made once and mapped into memory by every process that reads it: a rank
or a loader worker holds next to nothing of its own, however many images there are.
"""

from __future__ import annotations

import atexit
import mmap
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.errors import MissingInputError, StoreError
from pipeline.manifest import Manifest
from pipeline.storage import Location
from training.index.build import build, copies_file, order_file
from training.index.old import InUse
from training.index.order import in_order
from training.index.piece import Piece, open_arrow_file, open_piece
from training.slots import Slot


@dataclass(frozen=True)
class Bundles:
    """One sample per picture that has a caption for at least one slot, in the order of the pictures' ids.

    Sample s is row row_S[s] of piece piece_S[s]. `dropped` counts the rows of bundles that were left out, `captions`
    those of each slot.
    """

    pieces: tuple[Piece, ...]
    piece_S: np.ndarray
    row_S: np.ndarray
    dropped: int
    captions: tuple[int, ...]
    path: str | None = None  # of the order's file
    memory: mmap.mmap | None = None  # that it is mapped into
    mark: InUse | None = None  # which keeps its files from being removed

    def __len__(self) -> int:
        return len(self.row_S)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For another process: the files, which it maps as well."""
        return (open_bundles, (self.path,)) if self.path else super().__reduce_ex__(protocol)

    def sample(self, number: int) -> tuple[Piece, int]:
        """Where a sample is: its piece, and its row there."""
        return self.pieces[self.piece_S[number]], int(self.row_S[number])

    def release(self) -> None:
        """Lets go of the files' pages that were read, as `Piece.release` does."""
        for piece in self.pieces:
            piece.release()
        if self.memory is not None:
            self.memory.madvise(mmap.MADV_DONTNEED)

    def image_id(self, number: int) -> str:
        """The id of a sample's picture."""
        piece, row = self.sample(number)
        return str(piece.image_id[row].as_py())

    def key(self, number: int) -> str:
        """The key of the row that a sample's picture lies at."""
        piece, row = self.sample(number)
        return str(piece.key[row].as_py())


def read_bundles(curate: Manifest, slots: Sequence[Slot], folder: Location | None = None) -> Bundles:
    """All bundles of a curate manifest, with captions that no slot wants left out.

    The index is in `folder` of this machine, and is made where it is missing or damaged; without a folder it is gone
    with this process. Order and samples follow from what bundles hold and not from where it lies. Raises
    MissingInputError where no image has a caption for any of the slots.
    """
    if not curate.select("bundles/"):
        raise MissingInputError("the curate manifest holds no bundles; run curate again: holism curate CONFIG")
    order = order_file(curate, slots, folder or _temporary())
    try:
        bundles = open_bundles(order.uri)
    except StoreError:  # of a file that is not there, too
        build(curate, slots, order.parent)
        bundles = open_bundles(order.uri)
    if not len(bundles):
        raise _no_samples(curate, slots)
    return bundles


def open_bundles(path: str) -> Bundles:
    """The samples of an order's file. Raises StoreError where it or a piece is not there, or damaged."""
    batch, facts, memory = open_arrow_file(path)
    mark = InUse(path)
    order = Location(path)
    files = [*(order.parent / name for name in facts["pieces"]), copies_file(order)]
    pieces = tuple(open_piece(file.uri) for file in files)
    rows = batch["piece"].to_numpy(), batch["row"].to_numpy()
    bundles = Bundles(pieces, *rows, facts["dropped"], tuple(facts["captions"]), path, memory, mark)
    bundles.release()  # what was looked at to find the columns
    return bundles


def in_memory(pieces: Sequence[Piece]) -> Bundles:
    """The samples of pieces that are in no file."""
    piece_S, row_S, copies = in_order(pieces)
    captions = np.bincount(np.concatenate([piece.slot for piece in pieces]))
    dropped = sum(piece.dropped for piece in pieces)
    return Bundles((*pieces, copies), piece_S, row_S, dropped, tuple(captions.tolist()))


def _temporary() -> Location:
    folder = tempfile.mkdtemp(prefix="holism-index-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Location.of(folder)


def _no_samples(curate: Manifest, slots: Sequence[Slot]) -> MissingInputError:
    rows, perspectives = 0, set()
    for part in curate.select("bundles/"):
        table = curate.read(part, schemas.BUNDLES, ["captions"])
        rows += len(table)
        for chunk in table["captions"].chunks:
            perspectives |= set(pc.list_flatten(chunk).field("perspective").unique().to_pylist())
    return MissingInputError(
        f"none of the {rows} bundles has a caption for train.slots ({', '.join(slot.name for slot in slots)}); they "
        f"hold {', '.join(sorted(map(str, perspectives))) or 'no captions at all'}"
    )
