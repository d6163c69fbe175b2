"""Spreads a step's shards over a Ray cluster when asked; else they are gone through in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.cluster.actors import Pool, spread
from pipeline.cluster.config import ClusterConfig, StageRayConfig
from pipeline.cluster.connection import connected

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Where the shards of a step are gone through."""

    stage: StageRayConfig
    cluster: ClusterConfig

    def over(self, work: Callable[[str], T], shards: Sequence[str]) -> Iterator[T]:
        """Yield `work(shard)` for every shard: in order, or as they are finished where Ray does it.

        Only names go out and only small results come back; `work` reads and writes the tables itself.
        """
        if not self.stage.enabled:
            yield from map(work, shards)
            return
        with connected(self.cluster):
            import ray

            actors = self.stage.actors
            fitting = max(1, int(ray.cluster_resources().get("CPU", 1) // actors.cpus))
            pool = Pool.of(actors, len(shards), fitting, gpus=actors.gpus or 0.0)
            yield from spread(_Given(work), shards, pool, "curate", self.cluster)


@dataclass(frozen=True)
class _Given:
    """Makes the worker that it was given."""

    work: Callable[[str], Any]

    def __call__(self) -> Callable[[str], Any]:
        return self.work
