"""What is done, what is stale and why, and what a run would do: read from manifests alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.run import Session
from flows.stages import select
from pipeline import failures
from pipeline.config import semantic
from pipeline.manifest import Manifest
from pipeline.progress import duration
from pipeline.stage import Resolution
from pipeline.summary import counted

MAX_DIFFERENCES = 4


def status(session: Session, stages: Sequence[str] | None = None) -> str:
    """A line for each of these stages: done, stale (with the reasons) or never run."""
    lines, chosen = [f"workspace {session.workspace.root}"], {stage.name for stage in select(stages)}
    for name, resolution in session.resolve().items():
        if name not in chosen:
            continue
        state, *more = _state(session, resolution)
        lines.append(f"  {name:9} {state}")
        lines += [f"  {'':9} {line}" for line in (*more, *_failure(session, resolution))]
    return "\n".join(lines)


def plan(session: Session, stages: Sequence[str] | None = None) -> str:
    """What `holism run` would do with these stages, and why."""
    lines, chosen = [], {stage.name for stage in select(stages)}
    for name, resolution in session.resolve().items():
        if name not in chosen:
            continue
        if resolution.done:
            lines.append(f"  {name:9} nothing to do")
        else:
            lines.append(f"  {name:9} would run: {_why(session, resolution)}")
            if not resolution.missing and resolution.problem is None:
                lines += [
                    f"  {'':9} {line}"
                    for line in resolution.stage.preview(resolution.config, resolution.inputs, session.workspace)
                ]
    return "\n".join(lines)


def _state(session: Session, resolution: Resolution) -> list[str]:
    manifest = resolution.manifest
    if manifest is not None:
        first, *more = resolution.stage.describe(manifest)
        done = f"done    {_minute(manifest.created_at)}, {duration(manifest.seconds)}: {first}"
        return [done, *more, *(f"warning: {warning}" for warning in manifest.warnings)]
    stale = bool(session.workspace.manifests(resolution.stage.name))
    return [f"{'stale' if stale else 'not run':7} {_why(session, resolution)}"]


def _failure(session: Session, resolution: Resolution) -> list[str]:
    """That the stage's last run failed, if it did."""
    failure = failures.last(session.workspace, resolution.stage.name)
    if failure is None:
        return []
    other = ", with other settings or inputs" if failure.fingerprint != resolution.fingerprint else ""
    return [f"its last run failed {_minute(failure.at)}{other}: {failure.error}"]


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _why(session: Session, resolution: Resolution) -> str:
    if resolution.problem is not None:
        return f"cannot run: {resolution.problem}"
    if resolution.missing:
        return f"waits for {' and '.join(resolution.missing)}"
    if resolution.damage is not None:
        return resolution.damage
    earlier = session.workspace.manifests(resolution.stage.name)
    if not earlier:
        return "it never ran in this workspace"
    return "; ".join(differences(earlier[0], resolution)) or "its result under this configuration is gone"


def differences(earlier: Manifest, resolution: Resolution) -> list[str]:
    """How the newest result of a stage differs from what the current configuration asks for."""
    reasons = []
    if earlier.version != resolution.stage.version:
        reasons.append(f"the stage's version went from {earlier.version} to {resolution.stage.version}")
    changes = list(_changes(earlier.config, semantic(resolution.config)))
    reasons += changes[:MAX_DIFFERENCES]
    if len(changes) > MAX_DIFFERENCES:
        reasons.append(f"and {counted(len(changes) - MAX_DIFFERENCES, 'more setting')}")
    for name, manifest in resolution.inputs.items():
        if name not in resolution.stage.located_by and earlier.inputs.get(name) != manifest.digest:
            reasons.append(f"its input '{name}' has changed")
    for name, value in resolution.stage.external(resolution.config).items():
        if earlier.inputs.get(name) != value:
            reasons.append(f"what it reads from outside has changed ({name})")
    return reasons


def _changes(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _changes(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif old != new:
        yield f"{path} was {_short(old)} and is {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
