"""Which images are in which batch: an order of all of them for each epoch, a pure function of seed and epoch.

Global: a permutation, in which every image may follow every other. It suits local disks, where any byte is as near as
any other.

By blocks, in two levels, for shards on an object store: blocks of pictures that lie together (`training.index.blocks`)
are permuted, and the images of a window of them are mixed. So a block is read once an epoch, and what has to lie on
disk at a time is little more than the window. It is the sliding window of MosaicML streaming's `py1e`: each image is
put off by a random number of places less than the window, and a batch has images of many blocks from anywhere in the
data.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.errors import ConfigError
from pipeline.shards import ShardReader
from training.bundles import Bundles
from training.config import RunConfig
from training.index.blocks import Blocks, blocks_of


@dataclass(frozen=True)
class Order:
    """Which images are in which batch. `blocks` says where they lie; with a `window` it is by blocks, else global."""

    rows: int
    global_batch: int
    epochs: int
    seed: int
    blocks: Blocks | None = None
    window: int | None = None

    @property
    def steps_per_epoch(self) -> int:
        return self.rows // self.global_batch

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def facts(self) -> dict[str, str]:
        """What a checkpoint's position depends on beside seed and samples."""
        return {"order": f"by blocks {self.blocks.name}"} if self.blocks is not None and self.window else {}

    def batch(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch and the rows of a global batch; each epoch leaves out the few images that fill no batch."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self.blocks is not None and self.window:
            permutation = _by_blocks(self.blocks, self.window, self.seed, epoch)
        else:
            permutation = _permutation(self.rows, self.seed, epoch)
        return epoch, permutation[place * self.global_batch : (place + 1) * self.global_batch]


@lru_cache(maxsize=2)  # of an epoch, and of the next where that is read ahead
def _permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """In four bytes a row, as it is kept for an epoch: 12 million images are 48 MB."""
    permutation = np.arange(rows, dtype=np.uint32)
    np.random.default_rng([seed, epoch]).shuffle(permutation)
    return permutation


@lru_cache(maxsize=2)
def _by_blocks(blocks: Blocks, window: int, seed: int, epoch: int) -> np.ndarray:
    """Samples by the place of their block in a permutation of blocks, put off by less than the window."""
    rng = np.random.default_rng([seed, epoch])
    order_K = rng.permutation(len(blocks.count_K))
    place_K = np.empty(len(order_K), np.uint32)
    place_K[order_K] = np.cumsum(np.concatenate([[0], blocks.count_K[order_K[:-1]]]))
    place_S = place_K[blocks.block_S] + rng.integers(0, window, len(blocks.block_S), dtype=np.uint32)
    return np.argsort(place_S, kind="stable").astype(np.uint32)


def make_order(config: RunConfig, bundles: Bundles, reader: ShardReader) -> Order:
    """The order that `train.shuffle` asks for. Raises ConfigError where there are fewer images than a batch takes."""
    if len(bundles) < config.global_batch:
        raise ConfigError(
            f"train.global_batch is {config.global_batch}, but only {len(bundles)} images have captions for its "
            "slots; lower global_batch or ingest more images"
        )
    by_blocks = config.shuffle == "blocks" or (config.shuffle == "auto" and reader.is_remote)
    blocks = blocks_of(bundles) if by_blocks or reader.is_remote else None
    window = config.shuffle_window if by_blocks else None
    return Order(len(bundles), config.global_batch, config.epochs, config.seed, blocks, window)
