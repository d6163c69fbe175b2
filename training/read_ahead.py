"""Blocks of remote shards fetched before they are needed, by threads of the process that deals out the samples."""

import queue
import threading
from contextlib import suppress

from pipeline.messages import say
from training.batches import BatchMaker, Share

THREADS = 4  # requests at a time, of each rank
IMAGES = 4096  # of a rank, that are fetched ahead
STEPS = 8  # at least
REMEMBERED = 4096  # blocks that were asked for


class ReadAhead:
    """Deals out shares, and has the blocks of those to come fetched. Close it to end its threads."""

    def __init__(self, batches: BatchMaker, start: int) -> None:
        self._batches, self._next = batches, start
        size = batches.share_sizes[batches.rank]
        self._steps = max(STEPS, IMAGES // size)
        self._wanted: queue.SimpleQueue[tuple[str, tuple[int, int]] | None] = queue.SimpleQueue()
        self._asked: dict[tuple[int, int], None] = {}  # epoch and block, oldest first
        self._threads = 0
        self._is_closed = False
        if batches.rank == 0:
            self._warn_of_little_room()

    def share(self, step: int) -> Share:
        """The share of a step, as `BatchMaker.share`."""
        share = self._batches.share(step)
        while share.spans is not None and self._next < min(step + self._steps, self._batches.order.steps):
            self._ask(share if self._next == step else self._batches.share(self._next))
            self._next += 1
        return share

    def close(self) -> None:
        """Requests that are on their way are not waited for: their threads end with this process at the latest."""
        self._is_closed = True
        for _ in range(self._threads):
            self._wanted.put(None)

    def _ask(self, share: Share) -> None:
        batches, blocks = self._batches, self._batches.order.blocks
        assert blocks is not None
        for sample, block in zip(share.samples.tolist(), blocks.block_S[share.samples].tolist(), strict=True):
            if (share.epoch, block) in self._asked:
                continue
            self._asked[share.epoch, block] = None
            piece, row = batches.bundles.sample(sample)
            span = int(blocks.start_K[block]), int(blocks.end_K[block])
            self._wanted.put((piece.shard_names[piece.shard[row]], span))
            if len(self._asked) > REMEMBERED:
                del self._asked[next(iter(self._asked))]
        batches.bundles.release()
        while self._threads < THREADS:
            threading.Thread(target=self._fetch, name="read-ahead", daemon=True).start()
            self._threads += 1

    def _fetch(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            if not self._is_closed:
                with suppress(Exception):  # whoever needs the block meets the same fault, and says it
                    self._batches.reader.fetch(*wanted)

    def _warn_of_little_room(self) -> None:
        order, cache = self._batches.order, self._batches.reader.cache
        if order.blocks is None or cache is None or not order.window:
            return
        ahead = self._steps * sum(self._batches.share_sizes)
        needed = order.blocks.bytes * min(1.0, 1.5 * (order.window + ahead) / order.rows)
        if needed > cache.limit:
            say(
                f"train: warning: train.shard_cache_gb is {cache.limit / 1e9:.3g}, and train.shuffle_window "
                f"{order.window} needs some {needed / 1e9:.3g}, or parts of shards are fetched again and again; raise "
                "the first or lower the second",
                warning=True,
            )
