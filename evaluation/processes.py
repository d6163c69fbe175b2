"""Encoding by several processes: each encodes its share of shards, then this one reads them all.

A shard's batches are the same whoever encodes them, so 1 and 3 processes give the same numbers, however shards fall.
What a process leaves undone, whatever stopped it, this one encodes itself, and meets the same error if there is one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.features import Needs, Share, encode_share, missing_shards
from pipeline.messages import say
from pipeline.processes import process_pool
from pipeline.storage import Location


def encode_together(
    encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location | None, needs: Needs
) -> None:
    """Fill the cache by `config.processes` processes, where several shards of pictures are missing."""
    if config.processes == 1 or cache is None or encoder.again is None:
        return
    number = min(config.processes, missing_shards(encoder, benchmark, config, cache))
    if number < 2:
        return
    threads = max(1, torch.get_num_threads() // number)
    with process_pool(number) as pool:
        asked = [
            pool.submit(_encode, encoder.again, benchmark, config, cache, needs, Share(rank, number), threads)
            for rank in range(number)
        ]
        errors = [error for future in asked if (error := future.exception()) is not None]
    if errors:
        say(
            f"{len(errors)} of {number} processes stopped before their share was encoded ({errors[0]}); going on alone"
        )


def _encode(
    load: Callable[[], Encoder],
    benchmark: Benchmark,
    config: EvaluateConfig,
    cache: Location,
    needs: Needs,
    share: Share,
    threads: int,
) -> None:
    """A process's work, on a GPU of its own where there are several."""
    torch.set_num_threads(threads)
    if config.device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(share.rank % torch.cuda.device_count())
    encode_share(load(), benchmark, config, cache, needs, share)
