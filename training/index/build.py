"""Making what is missing of an index: a piece for each part of the bundles, and the order of all samples.

A file is named by what it is made of and appears whole, by one atomic step. So whoever finds it can use it, a build
that was killed goes on where it stopped, and a file that is damaged is made again. One process of a machine builds at
a time, on all its cores where there is much to do; what no index needs any more goes with the next build.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress

import numpy as np
import pyarrow as pa

from pipeline import faults, schemas
from pipeline.clip_tokens import TOKENIZER
from pipeline.commits import Part
from pipeline.errors import ScheduleError, StoreError
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.storage import Location
from training.index.old import remove_old
from training.index.order import in_order
from training.index.piece import COLUMNS, ROWS_AT_ONCE, Piece, arrow_file, open_piece, piece_of_batches, to_bytes
from training.processes import CleanContext, end_with_parent, start_server
from training.slots import Slot

VERSION = 1  # of the files
MANY = 50_000  # rows that are worth the start of further processes
MOST_PROCESSES = 16


def order_file(curate: Manifest, slots: Sequence[Slot], folder: Location) -> Location:
    """Where the order of these bundles' samples is, or will be."""
    return folder / f"order-{digest([piece_name(part, slots) for part in _parts(curate)])}.arrow"


def build(curate: Manifest, slots: Sequence[Slot], folder: Location) -> None:
    """Makes the order, and the pieces that are not there.

    Raises StoreError where there is no room for them, or where bundles are gone or damaged.
    """
    folder.make_folder()
    with alone(folder):
        pieces = _pieces(curate, slots, folder)
        piece_S, row_S, copies = in_order(pieces)
        facts = {
            "pieces": [piece_name(part, slots) for part in _parts(curate)],
            "dropped": sum(piece.dropped for piece in pieces),
            "captions": np.sum([_captions(piece, len(slots)) for piece in pieces], axis=0).tolist(),
        }
        order = order_file(curate, slots, folder)
        copies_file(order).write(to_bytes(copies))
        order.write(arrow_file(pa.RecordBatch.from_pydict({"piece": piece_S, "row": row_S}), facts))
        remove_old(folder, order)


def _captions(piece: Piece, slots: int) -> np.ndarray:
    """How many of each slot."""
    found = np.bincount(piece.slot, minlength=slots)
    piece.release()
    return found


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
    parts = _parts(curate)
    missing = [part for part in parts if not _is_there(folder / piece_name(part, slots))]
    if missing:
        progress = Progress("train: index", len(parts), "parts", done=len(parts) - len(missing))
        for _ in _made(curate, missing, slots, folder):
            progress.update()
        progress.close()
    return [open_piece((folder / piece_name(part, slots)).uri) for part in parts]


def _is_there(file: Location) -> bool:
    try:
        open_piece(file.uri)
    except StoreError:
        return False
    return True


def _made(curate: Manifest, parts: Sequence[Part], slots: Sequence[Slot], folder: Location) -> Iterator[Part]:
    """Makes the pieces of parts, by several processes where there are cores and work for them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cores, len(parts), MOST_PROCESSES)
    if processes == 1 or sum(part.rows for part in parts) < MANY:
        for part in parts:
            _make(curate, part, slots, folder)
            yield part
        return
    start_server()
    pool = ProcessPoolExecutor(processes, CleanContext(), end_with_parent)
    try:
        work = {pool.submit(_make, curate, part, slots, folder): part for part in parts}
        for done in as_completed(work):
            done.result()
            yield work[done]
    except BrokenProcessPool as error:
        raise ScheduleError(
            f"one of {processes} processes that made the training index was ended, most often for want of memory; "
            "free memory, and give the same command again: it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _make(curate: Manifest, part: Part, slots: Sequence[Slot], folder: Location) -> None:
    batches = curate.batches(part, schemas.BUNDLES, COLUMNS, ROWS_AT_ONCE)
    (folder / piece_name(part, slots)).write(to_bytes(piece_of_batches(batches, slots)))


@contextmanager
def alone(folder: Location) -> Iterator[None]:
    """Waits while another process of this machine works here. File systems without locks have everybody build."""
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
