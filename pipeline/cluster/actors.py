"""Work spread over Ray Data actors: items go out as references, results come back as they are finished."""

from __future__ import annotations

import math
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from pipeline.cluster.config import ActorsConfig, ClusterConfig
from pipeline.cluster.connection import reason
from pipeline.cluster.room import require_room
from pipeline.errors import HolismError, ScheduleError, StoreError
from pipeline.faults import outside_faults

MAX_BLOCKS = 4096  # Ray Data plans every block for itself


@dataclass(frozen=True)
class Pool:
    """What a stage's actors are asked for. `calls` is how many items an actor works at together."""

    min: int
    max: int
    cpus: float
    gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    calls: int = 1

    @classmethod
    def of(cls, actors: ActorsConfig, items: int, fitting: int, *, gpus: float = 0.0, calls: int = 1) -> Pool:
        """Fit the settings to the number of items, and to how many actors are `fitting` where they leave it open."""
        most = min(actors.max or max(fitting, actors.min or 1), items)
        calls = min(calls, math.ceil(items / most))  # few items are for all actors
        return cls(min(actors.min or most, most), most, actors.cpus, gpus, actors.resources, calls)

    @property
    def bundle(self) -> dict[str, float]:
        """What one actor takes."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {}) | dict(self.resources)


class _Actor:
    """A worker as Ray Data wants it: a row of one pickled item in, its pickled result out.

    Errors that are no fault of the code travel as values: raised, they would make Ray try again for ever.
    """

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self.work = make()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        result: Any
        try:
            with outside_faults():
                result = self.work(pickle.loads(batch["item"][0]))
        except HolismError as error:
            result = error
        except OSError as error:
            result = StoreError(f"a worker on {socket.gethostname()} cannot read or write a file: {error}")
        return {"result": [pickle.dumps(result)]}


def spread(
    make: Callable[[], Callable[[Any], Any]], items: Sequence[Any], pool: Pool, stage: str, cluster: ClusterConfig
) -> Iterator[Any]:
    """Yield what workers say of the items, as they are finished. Each actor calls `make` for its worker.

    Runs inside `connected`. Ray restarts actors that die, and hands their items to others. Raises what a worker
    raises of `HolismError`, and `ScheduleError` if there is no room, or if Ray gives the actors up.
    """
    import ray
    from ray.data import ActorPoolStrategy

    require_room(
        [pool.bundle] * pool.min,
        f"{stage} actors",
        f"lower {stage}.ray.actors or raise ray.num_cpus",
        cluster.schedule_seconds,
    )
    rows = [{"item": pickle.dumps(item)} for item in items]
    results = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map_batches(
        _Actor,
        fn_constructor_args=(make,),
        batch_size=1,
        compute=ActorPoolStrategy(
            min_size=pool.min,
            max_size=pool.max,
            max_tasks_in_flight_per_actor=pool.calls + 1,  # the next reference is there when an item ends
            max_concurrent_calls_per_actor=pool.calls,
            enable_true_multi_threading=pool.calls > 1,
        ),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        resources=dict(pool.resources) or None,
    )
    try:
        with closing(iter(results.iter_rows())) as rows_done:  # Ray ends a process that leaves it while data flows
            for row in rows_done:
                result = pickle.loads(row["result"])
                if isinstance(result, HolismError):
                    raise result
                yield result
    except ray.exceptions.RayError as error:
        raise ScheduleError(
            f"Ray stopped restarting the {stage} actors ({reason(error)}); see that nobody ends them and that all "
            "nodes can import what they need, and run the same command again: it goes on from here"
        ) from error
