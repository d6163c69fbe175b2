"""The Prefect flow `holism`: one task per stage, in order.

Prefect orders the stages, retries them and shows what happened. What is done and what is not is decided by
our own manifests: a stage with nothing to do ends as `Cached`, and no Prefect result is persisted.
"""

from __future__ import annotations

import logging
import signal
from typing import Any

from prefect import flow, get_client, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import CancelledRun, CrashedRun, FailedRun, TerminationSignal
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.tasks import Task

from flows.artifacts import publish
from flows.run import Session
from flows.stages import StageName, select
from pipeline.errors import HolismError
from pipeline.faults import outside_faults
from pipeline.manifest import Manifest
from pipeline.messages import Listener, heard_by
from pipeline.stops import end_children

USER_ERROR = "UserError"
STOPPED = "stopped; the same run goes on where it stopped"
PREFECTS_LOGGERS = ("prefect.flow_runs", "prefect.engine")  # which log a traceback of a state that is not well
STATES = (FailedRun, CancelledRun, CrashedRun, TerminationSignal)


class _WithoutTracebacks(logging.Filter):
    """Drops what Prefect says of an exception that only stands for a state or a stop: those are in the log already."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], STATES))


class _CancelledIsNoError(logging.Filter):
    """Lowers the level of the line in which Prefect says that a task was cancelled."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("Finished in state Cancelled("):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


logging.getLogger("prefect.task_runs").addFilter(_CancelledIsNoError(__name__))
for _name in PREFECTS_LOGGERS:
    logging.getLogger(_name).addFilter(_WithoutTracebacks(__name__))


def _is_worth_retrying(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """A wrong configuration or unreadable input stays wrong however often it is tried, and a stop is a stop."""
    return not isinstance(state.data, State) or state.data.name not in (USER_ERROR, "Cancelled", "Crashed")


@task(persist_result=False, cache_policy=NO_CACHE, retry_condition_fn=_is_worth_retrying)
def run_stage(session: Session, stage: str, retry_failed: bool) -> State[Any]:
    """Run one stage and publish what it did as artifacts. A user's error is a failed state, not a traceback."""
    logger = get_run_logger()
    try:
        with heard_by(_log(logger)), outside_faults():
            manifest, fresh = session.run(stage, retry_failed=retry_failed)
            _publish(session, manifest)
    except HolismError as error:
        return Failed(name=USER_ERROR, message=str(error))
    except (TerminationSignal, KeyboardInterrupt):
        if (state := _stopped()) is None:
            raise
        return state
    for warning in manifest.warnings:
        logger.warning("%s: %s", stage, warning)
    first, *more = select([stage])[0].describe(manifest)
    for line in more:
        logger.info("%s: %s", stage, line)
    message = f"{stage}: {first}"
    return Completed(message=message) if fresh else Completed(name="Cached", message=message)


@flow(name="holism", persist_result=False)
def holism(
    config: str,
    stages: list[StageName] | None = None,
    overrides: list[str] | None = None,
    retry_failed: bool = False,
    wait: bool = False,
) -> State[Any]:
    """Run the pipeline: images in, captions, a trained CLIP and a report out.

    Args:
        config: path of the YAML configuration.
        stages: which stages run; all of them if empty.
        overrides: settings as `section.key=value`.
        retry_failed: try failed rows again, and make damaged files again.
        wait: wait for another run that holds the workspace.
    """
    try:
        with outside_faults():
            session = Session.open(config, overrides or ())
            with heard_by(_log(get_run_logger())), session.hold(wait=wait):
                return _run_stages(session, stages, retry_failed)
    except HolismError as error:
        return Failed(name=USER_ERROR, message=str(error))
    except (TerminationSignal, KeyboardInterrupt):
        state = _stopped()
        if state is None or state.is_cancelled():
            raise
        return state


def _run_stages(session: Session, stages: list[StageName] | None, retry_failed: bool) -> State[Any]:
    settings = session.config.flow
    session.check(stages or None)
    states = []
    for stage in select(stages or None):
        state = run_stage.with_options(
            name=stage.name,
            task_run_name=stage.name,
            retries=settings.retries,
            retry_delay_seconds=settings.retry_delay_seconds,
            timeout_seconds=settings.timeout_hours * 3600 if settings.timeout_hours else None,
        )(session, stage.name, retry_failed, return_state=True)
        states.append(state)
        if state.is_cancelled():
            raise TerminationSignal(signal.SIGTERM)  # Prefect ends the run: as cancelled, in one line
        if state.is_crashed():
            return Crashed(message=f"{stage.name}: {state.message}")
        if not state.is_completed():
            return Failed(message=f"{stage.name}: {state.message}")
    if all(state.name == "Cached" for state in states):
        return Completed(name="Cached", message="nothing to do")
    return Completed(message="; ".join(str(state.message) for state in states))


def _publish(session: Session, manifest: Manifest) -> None:
    """Publish the artifacts. They are views of a result that is safe: no reason for a stage to fail."""
    try:
        publish(session, manifest)
    except Exception as error:  # of a picture, a library or Prefect's server
        get_run_logger().warning("%s: its artifacts could not be published: %s", manifest.stage, error)


def _log(logger: logging.Logger | logging.LoggerAdapter[Any]) -> Listener:
    """What a stage says, in Prefect's log."""
    return lambda line, warning: logger.log(logging.WARNING if warning else logging.INFO, "%s", line)


def _stopped() -> State[Any] | None:
    """The state of a run that somebody stopped, as Prefect itself would only log a traceback.

    None where Prefect has other plans with the run, such as to schedule it anew.
    """
    end_children()
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(flow_run.id).state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        return Cancelled(message=STOPPED)
    return Crashed(message=STOPPED) if state is not None and state.is_running() else None
