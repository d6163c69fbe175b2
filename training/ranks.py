"""Who this process is: alone, or one of torchrun's (or Ray Train's) ranks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """This process's place among all that train one model together."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

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


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Joins the group that RANK and WORLD_SIZE speak of; a process without them is alone and needs no group.

    A group that is there already (Ray Train makes one) is used and left as it is.
    """
    place = _device(device)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    elif count == 1:
        yield Ranks(0, 1, place)
    else:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
        try:
            yield Ranks(dist.get_rank(), dist.get_world_size(), place)
        finally:
            dist.destroy_process_group()


def _device(wanted: str) -> torch.device:
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise ConfigError("train.device is cuda, but torch sees no CUDA device; set it to auto or cpu")
    if wanted == "cpu" or not found:
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
