"""The train stage on Ray Train: this process waits, passes on what the first rank says, and passes stops to the ranks.

An actor on the cluster's head, the desk (`training.desk`), starts the ranks (`training.ray_rank`) and stands between
them and this process, which may be outside of the cluster (ray://).
"""

import time
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from signal import SIGTERM
from typing import Any

from pipeline import messages, stops
from pipeline.cluster.connection import connected, reason
from pipeline.errors import ConfigError, HolismError, ScheduleError
from pipeline.progress import LOG_SECONDS
from pipeline.stage import Outcome, StageRun
from training.desk import AGAIN, VARIABLES, Desk
from training.launch_settings import RayLaunch
from training.ray_rank import Work

HEAD = {"node:__internal_head__": 0.001}  # Ray's own resource of the one node that does not come and go
PATIENCE = 15.0  # seconds that ranks have to write a checkpoint when they are stopped
POLL = 0.5


def launched_on_ray(work: Work, run: StageRun, launch: RayLaunch, services: tuple[str, ...]) -> Outcome:
    """The stage's outcome, made by workers of Ray Train that each do `work` with `run` and the named services.

    Raises what a rank raised of HolismError, and ScheduleError where workers find no room or fail again and again.
    """
    if find_spec("ray") is None:
        raise ConfigError("train.launch.ray needs Ray, which is not installed: pip install 'ray[data,default]'")

    seconds = run.cluster.schedule_seconds
    run = replace(run, services={name: run.services[name] for name in services if name in run.services})
    with connected(run.cluster):
        import ray

        variables = VARIABLES | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(seconds)}
        actor: Any = ray.remote(Desk).options(
            num_cpus=0, resources=HEAD, max_concurrency=4, runtime_env={"env_vars": variables}
        )
        desk = actor.remote(work, run, launch, messages.progress_seconds() or LOG_SECONDS)
        try:
            return _outcome(desk)
        except ray.exceptions.RayTaskError:
            raise  # a mistake of ours
        except ray.exceptions.RayError as error:
            raise ScheduleError(
                f"train lost its Ray cluster ({reason(error)}); see that it is well, {AGAIN}"
            ) from error
        finally:
            with suppress(ray.exceptions.RayError):
                ray.kill(desk)  # and with it all that it has started


def _outcome(desk: Any) -> Outcome:
    import ray

    result = desk.train.remote().future()
    try:
        while not result.done():
            _pass_on(desk, result)
    except BaseException:
        with suppress(ray.exceptions.RayError):
            _stop(desk, result)
        raise
    _pass_on(desk, result)
    found = result.result()
    if isinstance(found, HolismError):
        raise found
    assert isinstance(found, Outcome), "ranks that nobody stopped have no outcome"
    return found


def _stop(desk: Any, result: Future[Any]) -> None:
    """Has the ranks write a checkpoint, if there are any, and waits for it."""
    is_training = desk.stop.remote(stops.came() or SIGTERM).future().result()
    deadline = time.monotonic() + PATIENCE
    while is_training and time.monotonic() < deadline and not result.done():
        _pass_on(desk, result)
    _pass_on(desk, result)


def _pass_on(desk: Any, result: Future[Any]) -> None:
    """What was said up to the next poll, or to the result.

    The waiting is Python's, here and above: an exception that a signal's handler raises within one of Ray's own waits
    may come out of it as a SystemError.
    """
    wait([result], timeout=POLL)
    for text, warning in desk.news.remote().future().result():
        messages.say(text, warning=warning)
