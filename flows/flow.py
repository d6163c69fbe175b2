"""The Prefect flow `holism`: one task per stage, in order.

Prefect orders the stages, retries them and shows what happened. What is done and what is not is decided by
our own manifests: a stage with nothing to do ends as `Cached`, and no Prefect result is persisted.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed, Failed
from prefect.tasks import Task

from flows.artifacts import publish
from flows.run import Session
from flows.stages import select
from flows.status import figures
from pipeline.errors import HolismError
from pipeline.faults import outside_faults

USER_ERROR = "UserError"


def _is_worth_retrying(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """A wrong configuration or unreadable input stays wrong however often it is tried."""
    return not (isinstance(state.data, State) and state.data.name == USER_ERROR)


@task(persist_result=False, cache_policy=NO_CACHE, retry_condition_fn=_is_worth_retrying)
def run_stage(session: Session, stage: str, retry_failed: bool) -> State[Any]:
    """Run one stage and publish what it did as artifacts. A user's error is a failed state, not a traceback."""
    try:
        with outside_faults():
            manifest, fresh = session.run(stage, retry_failed=retry_failed)
    except HolismError as error:
        return Failed(name=USER_ERROR, message=str(error))
    publish(manifest)
    for warning in manifest.warnings:
        get_run_logger().warning("%s: %s", stage, warning)
    message = f"{stage}: {figures(manifest)}"
    return Completed(message=message) if fresh else Completed(name="Cached", message=message)


@flow(name="holism", persist_result=False)
def holism(
    config: str,
    stages: list[str] | None = None,
    overrides: list[str] | None = None,
    retry_failed: bool = False,
    wait: bool = False,
) -> State[Any]:
    """Run the pipeline: images in, captions, a trained CLIP and a report out.

    Args:
        config: path of the YAML configuration.
        stages: some of ingest, caption, curate, train, evaluate; all of them if empty.
        overrides: settings as `section.key=value`.
        retry_failed: try rows again that ended in an error.
        wait: wait for another run that holds the workspace.
    """
    try:
        with outside_faults():
            session = Session.open(config, overrides or ())
            with session.hold(wait=wait):
                return _run_stages(session, stages, retry_failed)
    except HolismError as error:
        return Failed(name=USER_ERROR, message=str(error))


def _run_stages(session: Session, stages: list[str] | None, retry_failed: bool) -> State[Any]:
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
        if not state.is_completed():
            return Failed(message=f"{stage.name}: {state.message}")
    if all(state.name == "Cached" for state in states):
        return Completed(name="Cached", message="nothing to do")
    return Completed(message="; ".join(str(state.message) for state in states))
