"""Spreads work items over engines: Ray Data actors, or one engine in this process where there is no Ray.

Only references go out and short reports come back. Ray Data restarts actors that die and hands their items to the next
one, which finds in the store's notes who had them in hand.
"""

from __future__ import annotations

import importlib.util
import math
import os
import pickle
import socket
import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from captioning import attempts
from captioning.config import CaptionConfig, RayConfig
from captioning.store import WorkItem
from captioning.worker import IN_HAND, Actor, CaptionWorker, WorkerSpec
from pipeline.commits import Part
from pipeline.errors import HolismError, ScheduleError, StoreError
from pipeline.faults import outside_faults
from pipeline.stops import handlers_kept

PACKAGES = ("pipeline", "captioning", "training", "evaluation", "flows")
MAX_BLOCKS = 4096  # Ray Data plans every block for itself
CPU_ENGINES = 2
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a notice about GPUs that are not there
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
CONNECT_SECONDS = 5.0
TOKEN = (
    "the Ray cluster at {!r} asks for a token, and got none or a wrong one; set RAY_AUTH_MODE=token, and "
    "RAY_AUTH_TOKEN to the token or RAY_AUTH_TOKEN_PATH to its file (default ~/.ray/auth_token)"
)
START_ATTEMPTS = 3
_shutting_down: list[threading.Thread] = []  # at most one
READERS, READER_SECONDS = ("StreamingExecutor", "iter_threaded", "ray-data"), 5.0


def run(spec: WorkerSpec, items: Sequence[WorkItem], config: CaptionConfig) -> Generator[Part, None, None]:
    """Yield the committed parts as their items are finished, in any order."""
    attempts.forget_starts(spec.store)
    before = attempts.notes(spec.store)
    try:
        if config.ray.enabled and importlib.util.find_spec("ray"):
            yield from _on_ray(spec, items, config)
        else:
            yield from _here(replace(spec, threads=_threads(config.ray)), items)
    except BaseException:  # stopped by somebody or for a reason it names: nobody died
        attempts.take_back(spec.store, before)
        raise


def _here(spec: WorkerSpec, items: Sequence[WorkItem]) -> Iterator[Part]:
    """One worker in this process, as many items at once as an actor has."""
    worker, waiting = CaptionWorker(spec), deque(items)
    under_way: set[Future[list[Part]]] = set()
    with ThreadPoolExecutor(IN_HAND, "caption") as threads:
        try:
            while waiting or under_way:
                while waiting and len(under_way) < IN_HAND:
                    under_way.add(threads.submit(worker.work, waiting.popleft()))
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    yield from future.result()
        finally:
            worker.stop()


class RayWorker:
    """A `CaptionWorker` as Ray Data wants it: rows in, rows out.

    User errors travel as values: raised, they would make Ray start the engine again and again.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        import ray

        context = ray.get_runtime_context()
        actor = Actor(context.get_actor_id(), restarted=bool(context.was_current_actor_reconstructed))
        self.worker = CaptionWorker(spec, actor)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Answer a batch of one pickled item with its pickled parts or error."""
        result: list[Part] | HolismError
        try:
            with outside_faults():
                result = self.worker.work(pickle.loads(batch["item"][0]))
        except HolismError as error:
            result = error
        except OSError as error:  # raised, it would make Ray try for ever
            result = StoreError(f"a caption worker on {socket.gethostname()} cannot read or write a file: {error}")
        return {"result": [pickle.dumps(result)]}


@dataclass(frozen=True)
class Pool:
    """What the actors are asked for."""

    min: int
    max: int
    cpus: float
    gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def bundle(self) -> dict[str, float]:
        """What one actor takes."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {}) | dict(self.resources)

    @classmethod
    def of(cls, config: CaptionConfig, items: int, cluster: dict[str, float]) -> Pool:
        """Fit the configuration to the cluster and to the number of items."""
        actors, there = config.ray.actors, cluster.get("GPU", 0)
        gpus = actors.gpus
        if gpus is None:
            serves = there and config.engine.kind not in ("fake", "openai")
            gpus = float(config.engine.tensor_parallel_size) if serves else 0.0
        fitting = int(there // gpus) if gpus else min(CPU_ENGINES, int(cluster.get("CPU", 0) // actors.cpus))
        most = min(actors.max or max(fitting, actors.min or 1), items)
        return cls(min(actors.min or most, most), most, actors.cpus, gpus, actors.resources)


def _on_ray(spec: WorkerSpec, items: Sequence[WorkItem], config: CaptionConfig) -> Iterator[Part]:
    with cluster(config.ray):
        import ray
        from ray.data import ActorPoolStrategy

        pool = Pool.of(config, len(items), ray.cluster_resources())
        find_room(pool, min(config.ray.actors.min or 1, pool.max), config.ray.schedule_seconds, "caption")
        in_hand = min(IN_HAND, math.ceil(len(items) / pool.max))  # few items are for all actors
        rows = [{"item": pickle.dumps(item)} for item in items]
        results = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS)).map_batches(
            RayWorker,
            fn_constructor_args=(replace(spec, threads=max(1, int(pool.cpus))),),
            batch_size=1,
            compute=ActorPoolStrategy(
                min_size=pool.min,
                max_size=pool.max,
                max_tasks_in_flight_per_actor=in_hand + 1,  # the next reference is there when an item ends
                max_concurrent_calls_per_actor=in_hand,
                enable_true_multi_threading=True,
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
                    yield from result
        except ray.exceptions.RayError as error:
            raise ScheduleError(
                f"Ray gave the caption actors up ({_reason(error)}); see that nobody ends them and that all nodes can "
                "import what the engine needs, and run the same command again: it goes on from here"
            ) from error


@contextmanager
def cluster(config: RayConfig) -> Iterator[None]:
    """Connect to the cluster that is named, or start a Ray of this machine; a Ray that is there is used as it is.

    After work that went well Ray ends in the background, which takes more than a second: results are there meanwhile.
    """
    while _shutting_down:
        _shutting_down.pop().join()
    with handlers_kept():
        prepare()
        import ray

    if ray.is_initialized():
        yield
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    with handlers_kept():
        if address:
            _connect(address, quiet)
        else:
            _start_here(config, quiet)
    try:
        yield
    except BaseException:
        _shut_down()
        raise
    _shutting_down.append(threading.Thread(target=_shut_down, name="Ray's shutdown"))
    _shutting_down[-1].start()


def _shut_down() -> None:
    import ray

    _wait_for_readers()
    ray.shutdown()


def _wait_for_readers() -> None:
    """Ray ends a process in which a thread of Ray Data still reads after the shutdown, and its last words are lost."""
    for thread in threading.enumerate():
        if thread.name.startswith(READERS):
            thread.join(READER_SECONDS)


def _start_here(config: RayConfig, quiet: dict[str, Any]) -> None:
    """Ray gives its own helpers 20 s to come up, which a busy machine may need a second attempt for."""
    import ray

    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(address="local", num_cpus=config.num_cpus, include_dashboard=False, **quiet)
        except Exception as error:  # Ray raises plain Exception here
            ray.shutdown()
            if attempt + 1 == START_ATTEMPTS:
                raise ScheduleError(
                    f"Ray does not start on this machine ({' '.join(str(error).split())[:200]}); try again when it is "
                    "less busy, or set caption.ray.enabled=false"
                ) from error
        else:
            return


def _connect(address: str, quiet: dict[str, Any]) -> None:
    import ray

    failure = (
        f"no Ray cluster answers at {address!r} (caption.ray.address or RAY_ADDRESS); start it, correct the address, "
        "or unset both to run on this machine alone"
    )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # Ray itself would try for minutes
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise ScheduleError(f"{failure} ({error})") from error
    root = Path(__file__).resolve().parent.parent
    modules = [str(root / name) for name in PACKAGES if (root / name).is_dir()]
    try:
        if host and not address.startswith("ray://"):
            _knock(address)
        ray.init(address=address, runtime_env={"py_modules": modules}, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError, ray.exceptions.RayError) as error:
        raise ScheduleError(
            TOKEN.format(address) if _wants_token(error) else f"{failure} ({_reason(error)})"
        ) from error


def _knock(address: str) -> None:
    """Raise what is wrong with our token: `ray.init` tries a wrong one for 20 s, with a warning each second."""
    import ray

    with suppress(ImportError, TypeError, ray.exceptions.RpcError):  # not public: if it is not there, `init` says it
        from ray._raylet import GcsClient

        GcsClient(address=address)


def _wants_token(error: BaseException | None) -> bool:
    """Whether a missing or wrong token lies under Ray's error: older layers of it pass that on as text alone."""
    import ray

    if error is None:
        return False
    told = isinstance(error, ray.exceptions.AuthenticationError) or "InvalidAuthToken" in str(error)
    return told or _wants_token(error.__cause__ or error.__context__)


def find_room(pool: Pool, needed: int, seconds: float, stage: str) -> None:
    """Ask for all the room that is needed at once: actors that do not fit would wait for ever without a word."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    bundle = pool.bundle
    there = ray.cluster_resources()
    group = placement_group([bundle] * needed)
    try:
        if not group.wait(seconds):
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items())
            has = ", ".join(f"{there.get(name, 0):g} {name}" for name in bundle)
            raise ScheduleError(
                f"{needed} {stage} actors with {wanted} each found no room within {seconds:g} s: the Ray cluster "
                f"has {has}, some of it perhaps in use; lower {stage}.ray.actors or raise {stage}.ray.num_cpus"
            )
    finally:
        remove_placement_group(group)


def _reason(error: BaseException) -> str:
    """The first sentence of what lies under Ray's own error, such as a missing token."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()).split(". ")[0][:200]


def prepare() -> None:
    """Ray Data reports every few seconds where there is no terminal; our own progress line says it all.

    It would add no actor to a pool unless each had nearly twice as many items waiting as in hand.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import logging

    from ray.data import DataContext

    context = DataContext.get_current()
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _threads(config: RayConfig) -> int:
    return max(1, int(config.actors.cpus))
