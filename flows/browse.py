"""The caption browser on the results of a configuration, and beside it the report of evaluation.

It shows what this very configuration made. Where a stage has nothing under it (stale, or not run yet), an earlier
result stands in, and a note on every page says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from captioning.browse.results import STAGES as SHOWN
from captioning.browse.results import Results
from flows.run import Session
from flows.stages import select
from flows.status import differences
from pipeline.config import semantic
from pipeline.manifest import Manifest
from pipeline.stage import Resolution, resolve

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

# The report has its styles and pictures in itself, and loads nothing.
REPORT_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
MADE = {"ingest": "images", "caption": "captions", "curate": "verdicts"}


def browse(session: Session, host: str, port: int, allowed: Sequence[str] = ()) -> None:
    """Serve the browser until interrupted; beside the usual host names those `allowed` are answered."""
    from captioning.browse.server import serve

    serve(session.workspace, lambda: results(session), host, port, allowed, [report_route(session)])


def report_route(session: Session) -> BaseRoute:
    """The page of the report: that of this configuration, or the newest there is."""
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse
    from starlette.routing import Route

    def show(_: Request) -> HTMLResponse:
        evaluation = session.resolve()["evaluate"].manifest or next(
            iter(session.workspace.manifests("evaluate")), None
        )
        if evaluation is None:
            raise HTTPException(404, f"There is no report yet: {session.command('evaluate')} makes it.")
        (part,) = evaluation.select(str(evaluation.detail["report"]))
        evaluation.check(part)
        return HTMLResponse(evaluation.location(part).read(), headers=REPORT_HEADERS)

    return Route("/report", show, name="report")


def results(session: Session) -> Results:
    """The results under the configuration, earlier ones where there are none, and notes on the latter."""
    shown: dict[str, Manifest] = {}
    notes = []
    for stage, resolution in resolve(select(SHOWN), session.config.sections(), session.workspace).items():
        manifest = resolution.manifest or _earlier(session, resolution, shown)
        if manifest is not None:
            shown[stage] = manifest
        if resolution.manifest is None:
            notes.append(_note(session, resolution, manifest, shown))
    return Results(shown, tuple(notes))


def _earlier(session: Session, resolution: Resolution, shown: Mapping[str, Manifest]) -> Manifest | None:
    """The newest earlier result of a stage; rather one of what is shown already, and rather of the same settings."""
    settings = semantic(resolution.config)
    return max(
        session.workspace.manifests(resolution.stage.name),
        key=lambda earlier: (_belongs(earlier, resolution, shown), earlier.config == settings, earlier.created_at),
        default=None,
    )


def _belongs(manifest: Manifest, resolution: Resolution, shown: Mapping[str, Manifest]) -> bool:
    """Whether a result was made of the results that are shown."""
    made_of = {name: shown[name].digest for name in resolution.stage.upstream if name in shown}
    return all(manifest.inputs.get(name) == digest for name, digest in made_of.items())


def _note(session: Session, resolution: Resolution, manifest: Manifest | None, shown: Mapping[str, Manifest]) -> str:
    stage = resolution.stage.name
    what, command = MADE[stage], session.command(stage)
    if manifest is None:
        return f"No {what} yet: {command} makes them."
    made = f"of {manifest.created_at[:16].replace('T', ' ')}"
    if not _belongs(manifest, resolution, shown):
        made += f", made of other {' and '.join(MADE[name] for name in resolution.stage.upstream)}"
    return (
        f"These {what} are earlier ones ({made}), there are none of this configuration: "
        f"{_reason(resolution, manifest)}. {command} makes them."
    )


def _reason(resolution: Resolution, manifest: Manifest) -> str:
    if resolution.problem is not None:
        return str(resolution.problem)
    if resolution.missing:
        return f"they wait for {' and '.join(resolution.missing)}"
    return "; ".join(differences(manifest, resolution)) or "the result is gone"
