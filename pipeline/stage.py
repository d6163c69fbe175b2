"""The stage contract: a function of (config section, input manifests) to an output manifest.

A stage runs alone, on one machine, without an orchestrator. What it reads and what it leaves behind are
manifests; whether it has to run at all is decided here, from fingerprints, before any heavy import.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline import summary
from pipeline.cluster.config import ClusterConfig
from pipeline.commits import Part
from pipeline.config import Section, semantic
from pipeline.errors import ConfigError, HolismError, MissingInputError
from pipeline.identity import fingerprint
from pipeline.manifest import Manifest
from pipeline.summary import counted
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class StageRun:
    """What a stage is given: its section, its inputs, where to put things, the cluster, and what `flows` hands in.

    `services` carries work of other packages (a caption scorer, an evaluation during training) as callables,
    so that packages need not import each other.
    """

    config: Any
    inputs: Mapping[str, Manifest]
    workspace: Workspace
    fingerprint: str
    retry_failed: bool = False
    services: Mapping[str, Any] = field(default_factory=dict)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)


@dataclass(frozen=True)
class Outcome:
    """What a stage gives back; `store` is the folder that part names are relative to.

    `digest` is the identity of what came out; without it, that is the parts' and the detail.
    """

    store: str
    parts: Sequence[Part]
    digest: str = field(default="", kw_only=True)
    counts: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


def _nothing(_: Any) -> dict[str, str]:
    return {}


def _needs_all(_: Any) -> tuple[str, ...]:
    return ()


def _no_preview(*_: Any) -> list[str]:
    return []


def what_is_gone(manifest: Manifest) -> str | None:
    """The parts whose files are missing, or have another size."""
    if absent := manifest.absent():
        return f"gone or cut: {len(absent):,} of its {counted(len(manifest.parts), 'part')}, such as {absent[0].name}"
    return None


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    `version` is raised by hand when the code's results change. `external` gives digests of what the stage
    reads from outside the workspace (source images, benchmark data), so that a change there is noticed.
    `run` imports heavy libraries inside. `preview` says in lines what a run would cost, without starting anything.
    `damage` says in words what of a result is gone, if anything is: then there is work to do. `describe` says in
    lines what came out, for the terminal, `holism status` and Prefect (`pipeline.summary`). `does_without` names
    upstream stages that a configuration has no use for.
    """

    name: str
    version: int
    upstream: tuple[str, ...]
    config: type[Section]
    run: Callable[[StageRun], Outcome]
    external: Callable[[Any], Mapping[str, str]] = _nothing
    preview: Callable[[Any, Mapping[str, Manifest], Workspace], list[str]] = _no_preview
    located_by: tuple[str, ...] = ()  # upstream stages that only say where things lie: they decide no result
    damage: Callable[[Manifest], str | None] = what_is_gone
    describe: Callable[[Manifest], list[str]] = summary.plain
    does_without: Callable[[Any], tuple[str, ...]] = _needs_all


@dataclass(frozen=True)
class Resolution:
    """Where a stage stands under the current config."""

    stage: Stage
    config: Section
    inputs: Mapping[str, Manifest]
    missing: tuple[str, ...]  # upstream stages without a result under this config
    fingerprint: str | None  # None while an input is missing
    manifest: Manifest | None  # None: there is work to do
    problem: HolismError | None = None  # why what the stage reads from outside cannot be read
    damage: str | None = None  # what of an earlier result is gone: of this stage, or of the first that is missing

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.manifest is not None


def resolve(
    stages: Sequence[Stage], configs: Mapping[str, Section], workspace: Workspace, *, damaged: bool = False
) -> dict[str, Resolution]:
    """Look up every stage's result under the current config. `stages` come in order, upstream first.

    A stage without a section cannot run. A result of which something is gone counts as none, unless `damaged` ones are
    wanted as well.
    """
    resolutions: dict[str, Resolution] = {}
    for stage in stages:
        if stage.name in configs:
            resolutions[stage.name] = _resolve_one(stage, configs[stage.name], resolutions, workspace, damaged)
        else:
            problem = ConfigError(
                f"the configuration has no section '{stage.name}', so there is nothing to {stage.name}"
            )
            resolutions[stage.name] = Resolution(stage, Section(), {}, (), None, None, problem)
    return resolutions


def _resolve_one(
    stage: Stage, config: Section, resolutions: Mapping[str, Resolution], workspace: Workspace, damaged: bool
) -> Resolution:
    needed = [name for name in stage.upstream if name not in stage.does_without(config)]
    inputs = {name: m for name in needed if (m := resolutions[name].manifest) is not None}
    missing = tuple(name for name in needed if name not in inputs)
    try:
        digests = _input_digests(stage, config, inputs)
    except HolismError as problem:
        return Resolution(stage, config, inputs, missing, None, None, problem)
    if missing:
        return Resolution(stage, config, inputs, missing, None, None, damage=resolutions[missing[0]].damage)
    identity = fingerprint(stage.name, stage.version, semantic(config), digests)
    manifest = workspace.manifest(stage.name, identity)
    damage = stage.damage(manifest) if manifest is not None and not damaged else None
    return Resolution(stage, config, inputs, (), identity, None if damage else manifest, damage=damage)


def _input_digests(stage: Stage, config: Section, inputs: Mapping[str, Manifest]) -> dict[str, str]:
    decisive = {name: manifest.digest for name, manifest in inputs.items() if name not in stage.located_by}
    return {**decisive, **stage.external(config)}


def execute(
    resolution: Resolution,
    workspace: Workspace,
    *,
    retry_failed: bool = False,
    services: Mapping[str, Any] | None = None,
    cluster: ClusterConfig | None = None,
    command: str = "holism {stage} CONFIG",
) -> Manifest:
    """Run a stage if its result is not there (or failed rows are to be retried), and publish its manifest.

    Raises `MissingInputError`, naming the command to run first (`command` with the stage's name filled in), if an
    upstream result is missing.
    """
    stage = resolution.stage
    if resolution.missing:
        first = resolution.missing[0]
        raise MissingInputError(
            f"stage '{stage.name}' needs the result of '{first}' under this configuration, and "
            + (f"of that is {resolution.damage}, in" if resolution.damage else "there is none in")
            + f" {workspace.root}; run it first: {command.replace('{stage}', first)}"
        )
    if resolution.problem is not None:
        raise resolution.problem
    if resolution.manifest is not None and not retry_failed:
        return resolution.manifest
    assert resolution.fingerprint is not None
    started = time.monotonic()
    outcome = stage.run(
        StageRun(
            resolution.config,
            resolution.inputs,
            workspace,
            resolution.fingerprint,
            retry_failed,
            services or {},
            cluster or ClusterConfig(),
        )
    )
    manifest = Manifest(
        stage=stage.name,
        fingerprint=resolution.fingerprint,
        version=stage.version,
        config=semantic(resolution.config),
        inputs=_input_digests(stage, resolution.config, resolution.inputs),
        store=outcome.store,
        parts=tuple(outcome.parts),
        digest=outcome.digest,
        counts=dict(outcome.counts),
        detail=dict(outcome.detail),
        warnings=tuple(outcome.warnings),
        created_at=datetime.now(UTC).isoformat("T", "milliseconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    workspace.save(manifest)
    return manifest
