"""Checkpoints of a run: written by a thread from a copy, so that the loop waits for the copy alone.

Of a run's checkpoints the newest whole one counts. A damaged one is named and left aside: it is of steps that are
trained again, and goes when the next one is written.
"""

import io
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from pipeline.errors import HolismError, StoreError
from pipeline.messages import say
from pipeline.storage import Location
from training.checkpoint import DamagedError, read_checkpoint


class CheckpointWriter:
    """Writes one checkpoint at a time; what goes wrong is raised by the next call. Leaving it waits for the last."""

    def __init__(self, folder: Location, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None
        self._written = time.monotonic()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._thread.shutdown()
        if kind is None:
            self.wait()

    @property
    def minutes_ago(self) -> float:
        """How long ago the last one was begun, or this run, if there was none."""
        return (time.monotonic() - self._written) / 60

    def write(self, state: Mapping[str, Any], step: int) -> None:
        """Copies the state and returns; the file follows. One that is still being written is waited for first."""
        self.wait()
        self._written = time.monotonic()
        self._last = self._thread.submit(_write, self._folder, _copied(state), step, self._keep)

    def wait(self) -> None:
        """Until the last one is in its place. Raises StoreError where it could not be written."""
        if self._last is not None:
            self._last.result()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return self._last is None or self._last.done()

    def check(self) -> None:
        """Raises what went wrong with the last one, if it has come to its end."""
        if self.is_idle:
            self.wait()


def newest_checkpoint(folder: Location) -> dict[str, Any] | None:
    """The last whole checkpoint of a run, None if there is none at all. Damaged ones are named on the terminal.

    Raises StoreError where there are only damaged ones.
    """
    files = [file for file, _ in folder.files(".pt")]
    damage = None
    for file in reversed(files):
        try:
            return _with_origin(read_checkpoint(file), file)
        except DamagedError as error:
            damage = error
            say(f"train: warning: {error}; the one before is used", warning=True)
    if damage is not None:
        raise StoreError(f"no checkpoint in {folder} is whole; delete the folder to train this run from its start")
    return None


def _with_origin(state: dict[str, Any], file: Location) -> dict[str, Any]:
    if "origin" not in state:
        raise StoreError(
            f"the checkpoint {file} is of an earlier version, which did not note what it came from; delete its folder "
            "to train this run from its start"
        )
    return state


def _write(folder: Location, state: Mapping[str, Any], step: int, keep: int) -> None:
    """Writes step-N.pt in one atomic step, then removes older ones but for the newest, and those of later steps."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    name = f"step-{step:09d}.pt"
    try:
        (folder / name).write(buffer.getvalue())
    except HolismError as error:
        whole = [file.name for file, _ in folder.files(".pt")]
        raise StoreError(
            f"checkpoint {name} was not written, and the last one is {whole[-1] if whole else 'none'}: {error}"
        ) from error
    files = [file for file, _ in folder.files(".pt")]
    upto = [file for file in files if file.name <= name]
    for old in upto[:-keep] + files[len(upto) :]:
        old.remove()


def _copied(value: Any) -> Any:
    """The same in the machine's memory, which further steps leave alone."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value
