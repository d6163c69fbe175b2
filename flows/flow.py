"""The Prefect flow `holism`: one task per stage, in order.

Prefect orders the stages, retries them and shows what happened. What is done and what is not is decided by
our own manifests: a stage with nothing to do ends as `Cached`, and no Prefect result is persisted.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Completed
from prefect.tasks import Task

from flows.artifacts import publish
from flows.run import Session
from flows.stages import select
from flows.status import figures
from pipeline.errors import HolismError


def _is_worth_retrying(_: Task[..., Any], __: TaskRun, state: State[Any]) -> bool:
    """A wrong configuration or unreadable input stays wrong however often it is tried."""
    return not isinstance(state.data, HolismError) and not isinstance(
        getattr(state.data, "exception", None), HolismError
    )


@task(persist_result=False, cache_policy=NO_CACHE, retry_condition_fn=_is_worth_retrying)
def run_stage(session: Session, stage: str, retry_failed: bool) -> Any:
    """Run one stage and publish what it did as artifacts."""
    manifest, fresh = session.run(stage, retry_failed=retry_failed)
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
) -> None:
    """Run the pipeline: images in, captions, a trained CLIP and a report out.

    Args:
        config: path of the YAML configuration.
        stages: some of ingest, caption, curate, train, evaluate; all of them if empty.
        overrides: settings as `section.key=value`.
        retry_failed: try rows again that ended in an error.
        wait: wait for another run that holds the workspace.
    """
    session = Session.open(config, overrides or ())
    chosen = select(stages or None)
    settings = session.config.flow
    with session.hold(wait=wait):
        for stage in chosen:
            run_stage.with_options(
                name=stage.name,
                task_run_name=stage.name,
                retries=settings.retries,
                retry_delay_seconds=settings.retry_delay_seconds,
                timeout_seconds=settings.timeout_hours * 3600 if settings.timeout_hours else None,
            )(session, stage.name, retry_failed)
