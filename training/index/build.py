"""Making what is missing of an index: a piece for each part of the bundles, and the order of all samples.

A file is named by what it is made of and appears whole, by one atomic step. So whoever finds it can use it, a build
that was killed goes on where it stopped, and a file that is damaged is made again. One process of a machine builds at
a time.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import pyarrow as pa

from pipeline import faults, schemas
from pipeline.clip_tokens import TOKENIZER
from pipeline.commits import Part
from pipeline.errors import StoreError
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.storage import Location
from training.config import Slot
from training.index.order import in_order
from training.index.piece import COLUMNS, Piece, arrow_file, open_piece, piece_of, to_bytes

VERSION = 1  # of the files


def order_file(curate: Manifest, slots: Sequence[Slot], folder: Location) -> Location:
    """Where the order of these bundles' samples is, or will be."""
    return folder / f"order-{digest([piece_name(part, slots) for part in _parts(curate)])}.arrow"


def build(curate: Manifest, slots: Sequence[Slot], folder: Location) -> None:
    """Makes the order, and the pieces that are not there.

    Raises StoreError where there is no room for them, or where bundles are gone or damaged.
    """
    folder.make_folder()
    with _alone(folder):
        pieces = _pieces(curate, slots, folder)
        piece_S, row_S, copies = in_order(pieces)
        facts = {
            "pieces": [piece_name(part, slots) for part in _parts(curate)],
            "dropped": sum(piece.dropped for piece in pieces),
            "captions": np.sum([np.bincount(piece.slot, minlength=len(slots)) for piece in pieces], axis=0).tolist(),
        }
        order = order_file(curate, slots, folder)
        copies_file(order).write(to_bytes(copies))
        order.write(arrow_file(pa.RecordBatch.from_pydict({"piece": piece_S, "row": row_S}), facts))


def copies_file(order: Location) -> Location:
    """The piece of the pictures that have several rows, which belongs to one order."""
    return order.parent / order.name.replace("order-", "copies-")


def _parts(curate: Manifest) -> tuple[Part, ...]:
    return curate.select("bundles/")


def piece_name(part: Part, slots: Sequence[Slot]) -> str:
    """The name of a part's piece, which says all that it follows from."""
    wanted = [[slot.perspective, slot.granularity] for slot in slots]
    return f"piece-{digest([VERSION, TOKENIZER, part.digest, wanted])}.arrow"


def _pieces(curate: Manifest, slots: Sequence[Slot], folder: Location) -> list[Piece]:
    """The pieces of all parts, made where they are missing."""
    pieces, progress = [], None
    for number, part in enumerate(_parts(curate)):
        file = folder / piece_name(part, slots)
        with suppress(StoreError):
            pieces.append(open_piece(file.uri))
            continue
        if progress is None:
            progress = Progress("train: index", len(_parts(curate)), "parts", done=number)
        file.write(to_bytes(piece_of(curate.read(part, schemas.BUNDLES, COLUMNS), slots)))
        pieces.append(open_piece(file.uri))
        progress.update()
    if progress is not None:
        progress.close()
    return pieces


@contextmanager
def _alone(folder: Location) -> Iterator[None]:
    """Waits while another process of this machine builds here. File systems without locks have everybody build."""
    try:
        lock = os.open((folder / ".lock").uri, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise faults.of_file(error, folder / ".lock") from error
    try:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
