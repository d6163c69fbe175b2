"""Connecting to a Ray cluster, or starting a Ray of this machine, and leaving it again."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.cluster.config import ClusterConfig
from pipeline.errors import ScheduleError
from pipeline.stops import handlers_kept

PACKAGES = ("pipeline", "captioning", "training", "evaluation", "flows")
QUIET = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a notice about GPUs that are not there
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}
CONNECT_SECONDS = 5.0
TOKEN = (
    "the Ray cluster at {!r} asks for a token, and got none or a wrong one; set ray.token_path to the file that "
    "holds it, or RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token or RAY_AUTH_TOKEN_PATH to its file (default "
    "~/.ray/auth_token)"
)
START_ATTEMPTS = 3
READERS, READER_SECONDS = ("StreamingExecutor", "iter_threaded", "ray-data"), 5.0


@contextmanager
def connected(config: ClusterConfig) -> Iterator[None]:
    """Connect to the cluster that is named, or start a Ray of this machine; a Ray that is there is used as it is."""
    if config.token_path is not None:
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN_PATH"] = "token", config.token_path
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
    finally:  # not in the background, though it takes a second: whoever still holds a reference would end the process
        _wait_for_readers()
        ray.shutdown()


def _wait_for_readers() -> None:
    """Ray ends a process in which a thread of Ray Data still reads after the shutdown, and its last words are lost."""
    for thread in threading.enumerate():
        if thread.name.startswith(READERS):
            thread.join(READER_SECONDS)


def _start_here(config: ClusterConfig, quiet: dict[str, Any]) -> None:
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
                    "less busy, or set enabled: false in the stage's section ray"
                ) from error
        else:
            return


def _connect(address: str, quiet: dict[str, Any]) -> None:
    import ray

    failure = (
        f"no Ray cluster answers at {address!r} (ray.address or RAY_ADDRESS); start it, correct the address, "
        "or unset both to run on this machine alone"
    )
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():  # Ray itself would try for minutes
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:
            raise ScheduleError(f"{failure} ({error})") from error
    root = Path(__file__).resolve().parent.parent.parent
    modules = [str(root / name) for name in PACKAGES if (root / name).is_dir()]
    try:
        if host and not address.startswith("ray://"):
            _knock(address)
        ray.init(address=address, runtime_env={"py_modules": modules}, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError, ValueError, ray.exceptions.RayError) as error:
        raise ScheduleError(
            TOKEN.format(address) if _wants_token(error) else f"{failure} ({reason(error)})"
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


def reason(error: BaseException) -> str:
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
