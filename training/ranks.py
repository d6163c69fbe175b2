"""Who this process is: alone, or one of torchrun's (or Ray Train's) ranks."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from pipeline.errors import ConfigError, ScheduleError

BUCKET = 2**23  # gradients in one collective, 32 MiB
_LOST = ("connection closed", "connection reset", "broken pipe", "timed out", "remote process exited")


class LostRankError(ScheduleError):
    """Another rank ended, and this one with it."""


@dataclass(frozen=True)
class Ranks:
    """This process's place among all that train one model together."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def on(self, device: str) -> "Ranks":
        """The same ranks, on another device. Raises ConfigError where they cannot speak to each other there."""
        place = _device(device)
        if self.count > 1 and place.type != self.device.type:
            raise ConfigError(
                f"train.runs: a run wants {place.type}, but the ranks were joined on {self.device.type}; set "
                "train.device, which holds for all runs"
            )
        return replace(self, device=place)

    def agree(self, value: Any) -> Any:
        """The first rank's value, on all ranks."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over all ranks."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gives each parameter the mean of its gradients over all ranks, several parameters in one collective."""
        if self.count == 1:
            return
        bucket: list[torch.Tensor] = []
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(grad.numel() for grad in bucket) >= BUCKET:
                self._average(bucket)
                bucket = []
        self._average(bucket)

    def _average(self, values: list[torch.Tensor]) -> None:
        if values:
            flat = self.mean(torch.cat([value.flatten() for value in values]))
            for value, part in zip(values, flat.split([value.numel() for value in values]), strict=True):
                value.copy_(part.view_as(value))


class Votes:
    """Whether any rank wants to stop, agreed by all one step late: the exchange runs beside the next step."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._group = dist.new_group(backend="gloo") if ranks.count > 1 else None  # on the CPU, whatever ranks use
        self._wanted = torch.zeros(1)
        self._sent: Any = None

    def __call__(self, wanted: bool) -> bool:
        """To be called by every rank after every step."""
        if self._group is None:
            return wanted
        agreed = self.last()
        self._wanted = torch.full((1,), float(wanted))
        self._sent = dist.all_reduce(self._wanted, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed

    def last(self) -> bool:
        """What was agreed on the step before; to be called after the last one too."""
        if self._sent is not None:
            self._sent.wait()
        return bool(self._wanted.item())


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Joins the group that RANK and WORLD_SIZE speak of; a process without them is alone and needs no group.

    One group serves all that a process trains: torchrun's ranks cannot make another after it. A group that is there
    already (Ray Train makes one) is used and left as it is. Raises LostRankError where another rank is lost.
    """
    place = _device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    elif count == 1:
        yield Ranks(0, 1, place)
    else:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
        rank = dist.get_rank()
        try:
            yield Ranks(rank, dist.get_world_size(), place)
        except RuntimeError as error:
            if not _is_loss_of_a_rank(error):
                raise
            raise LostRankError(
                f"rank {rank} of train stopped because another rank ended, whose own message says why; the same "
                "command goes on from the last checkpoint"
            ) from error
        dist.destroy_process_group()  # after an error it might wait for the others, and they for it


def _is_loss_of_a_rank(error: RuntimeError) -> bool:
    """Whether a collective failed. torch has a type for NCCL's failures; gloo's are known by their words alone."""
    return isinstance(error, dist.DistError) or any(words in str(error).lower() for words in _LOST)


def _device(wanted: str) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise ConfigError("train.device is cuda, but torch sees no CUDA device; set it to auto or cpu")
    if wanted == "cpu" or not has_gpu:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
