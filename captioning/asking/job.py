"""Spreads work items over engines: on Ray, an actor for each, or one engine in this process where there is no Ray.

Only references go out and short reports come back. Ray restarts actors that die and hands their items to the next one,
which finds in the store's notes who had them in hand.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial

from captioning.asking import attempts
from captioning.asking.worker import AT_ONCE, Actor, CaptionWorker, WorkerSpec
from captioning.config import CaptionConfig
from captioning.store import WorkItem
from pipeline.cluster.actors import Pool, spread
from pipeline.cluster.config import ClusterConfig
from pipeline.cluster.connection import connected
from pipeline.commits import Part

CPU_ENGINES = 2


def run(
    spec: WorkerSpec, items: Sequence[WorkItem], config: CaptionConfig, cluster: ClusterConfig
) -> Generator[Part, None, None]:
    """Yield the committed parts as their items are finished, in any order."""
    attempts.forget_starts(spec.store)
    before = attempts.notes(spec.store)
    spec = replace(spec, threads=max(1, int(config.ray.actors.cpus)))
    try:
        if config.ray.enabled and importlib.util.find_spec("ray"):
            yield from _on_ray(spec, items, config, cluster)
        else:
            yield from _here(spec, items)
    except BaseException:  # stopped, or failed for a reason that it names: no worker died
        attempts.take_back(spec.store, before)
        raise


def _here(spec: WorkerSpec, items: Sequence[WorkItem]) -> Iterator[Part]:
    """One worker in this process, as many items at once as an actor has."""
    worker, waiting = CaptionWorker(spec), deque(items)
    under_way: set[Future[list[Part]]] = set()
    with ThreadPoolExecutor(AT_ONCE, "caption") as threads:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < AT_ONCE:
                    under_way.add(threads.submit(worker.work, waiting.popleft()))
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            worker.stop()


def _on_ray(
    spec: WorkerSpec, items: Sequence[WorkItem], config: CaptionConfig, cluster: ClusterConfig
) -> Iterator[Part]:
    with connected(cluster):
        import ray

        pool = pool_of(config, len(items), ray.cluster_resources())
        for parts in spread(partial(_worker, spec), items, pool, "caption", cluster):
            yield from parts


def _worker(spec: WorkerSpec) -> Callable[[WorkItem], list[Part]]:
    """The worker of the actor that this runs in."""
    import ray

    context = ray.get_runtime_context()
    restarted = bool(context.was_current_actor_reconstructed)
    return CaptionWorker(spec, Actor(context.get_actor_id(), restarted)).work


def pool_of(config: CaptionConfig, items: int, cluster: dict[str, float]) -> Pool:
    """One engine an actor: as many as there are GPUs for; without GPUs two, as each takes memory of its own."""
    actors, there = config.ray.actors, cluster.get("GPU", 0)
    gpus = actors.gpus
    if gpus is None:
        serves = there and config.engine.kind not in ("fake", "openai")
        gpus = float(config.engine.tensor_parallel_size) if serves else 0.0
    fitting = int(there // gpus) if gpus else min(CPU_ENGINES, int(cluster.get("CPU", 0) // actors.cpus))
    return Pool.of(actors, items, fitting, gpus=gpus, calls=AT_ONCE)
