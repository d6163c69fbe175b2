"""Spreads a step's shards over a Ray cluster when asked; else they are gone through in this process."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from captioning.config import RayConfig
from pipeline.errors import HolismError
from pipeline.faults import outside_faults

T = TypeVar("T")


def over(work: Callable[[str], T], shards: Sequence[str], ray: RayConfig) -> Iterator[T]:
    """Yield `work(shard)` for every shard: in order, or as they are finished where Ray does it.

    Only names go out and only small results come back; `work` reads and writes the tables itself.
    """
    if ray.enabled:
        yield from _on_ray(work, shards, ray)
    else:
        yield from map(work, shards)


class _Worker:
    """`work` as Ray Data wants it. User errors travel as values: raised, they would be tried again."""

    def __init__(self, work: Callable[[str], Any]) -> None:
        self.work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        result: Any
        try:
            with outside_faults():
                result = self.work(row["shard"])
        except HolismError as error:
            result = error
        return {"result": pickle.dumps(result)}


def _on_ray(work: Callable[[str], T], shards: Sequence[str], config: RayConfig) -> Iterator[T]:
    from captioning.ray_job import MAX_BLOCKS, Pool, cluster, find_room

    with cluster(config):
        import ray
        from ray.data import ActorPoolStrategy

        actors = config.actors
        most = min(actors.max or max(1, int(ray.cluster_resources().get("CPU", 1) // actors.cpus)), len(shards))
        pool = Pool(min(actors.min or most, most), most, actors.cpus, actors.gpus or 0, actors.resources)
        find_room(pool, min(actors.min or 1, most), config.schedule_seconds, "curate")
        rows = ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=min(len(shards), MAX_BLOCKS)
        )
        results = rows.map(
            _Worker,
            fn_constructor_args=(work,),
            compute=ActorPoolStrategy(min_size=pool.min, max_size=pool.max),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            resources=dict(pool.resources) or None,
        )
        with closing(iter(results.iter_rows())) as done:  # Ray ends a process that leaves it while data flows
            for row in done:
                result = pickle.loads(row["result"])
                if isinstance(result, HolismError):
                    raise result
                yield result
