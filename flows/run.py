"""Running stages one after the other. The command line and the Prefect flow both stand on `Session`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from shlex import quote

from flows import checks, services
from flows.config import HolismConfig, load_config
from flows.stages import STAGES, select
from pipeline import failures
from pipeline.errors import ConfigError, HolismError
from pipeline.manifest import Manifest
from pipeline.stage import Resolution, execute, resolve
from pipeline.workspace import Workspace


@dataclass(frozen=True)
class Session:
    """A configuration, where it came from, and the workspace it works in."""

    path: str
    overrides: tuple[str, ...]
    config: HolismConfig
    workspace: Workspace

    @classmethod
    def open(cls, path: str, overrides: Sequence[str] = ()) -> Session:
        """Read and validate the configuration."""
        config = load_config(path, overrides)
        workspace = Workspace(config.workspace)
        workspace.require_store()
        return cls(path, tuple(overrides), config, workspace)

    def resolve(self, *, damaged: bool = False) -> dict[str, Resolution]:
        """Where every stage stands now; with `damaged`, results of which something is gone count as well."""
        return resolve(STAGES, self.config.sections(), self.workspace, damaged=damaged)

    def command(self, verb: str) -> str:
        """The command that runs `verb` under this very configuration."""
        return " ".join(
            ["holism", verb, *filter(None, [self.path]), *(f"--set {quote(item)}" for item in self.overrides)]
        )

    def needs_work(self, stages: Sequence[str] | None) -> bool:
        """Whether any of these stages has something to do."""
        resolutions = self.resolve()
        return not all(resolutions[stage.name].done for stage in select(stages))

    def problems(self, stages: Sequence[str] | None) -> dict[str, HolismError]:
        """What these stages would refuse, by stage: found before hours of work, whatever else is missing."""
        resolutions, problems = self.resolve(), dict[str, HolismError]()
        for stage in select(stages):
            resolution = resolutions[stage.name]
            if resolution.done:
                continue
            try:
                if resolution.problem is not None:
                    raise resolution.problem
                checks.check(stage.name, self.config)
            except HolismError as problem:
                problems[stage.name] = problem
        return problems

    def check(self, stages: Sequence[str] | None) -> None:
        """Refuse what these stages would refuse: a mistyped folder is found before hours of work."""
        if problems := list(self.problems(stages).values()):
            raise problems[0]

    def run(self, stage: str, *, retry_failed: bool = False) -> tuple[Manifest, bool]:
        """Run one stage unless its result is there. Returns its manifest and whether work was done."""
        resolution = self.resolve()[stage]
        fresh = not resolution.done or retry_failed
        if fresh:
            _require_one_process(stage)
        with self._failure_remembered(resolution):
            manifest = execute(
                resolution,
                self.workspace,
                retry_failed=retry_failed,
                services=services.of(self.config, resolution.inputs, self.workspace),
                cluster=self.config.ray,
                command=self.command("{stage}"),
            )
        return manifest, fresh

    def _failure_remembered(self, resolution: Resolution) -> AbstractContextManager[None]:
        if _rank() > 0:
            return nullcontext()
        return failures.remembered(self.workspace, resolution.stage.name, resolution.fingerprint)

    @contextmanager
    def hold(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the workspace's lock; of torchrun's ranks the first one holds it for all."""
        if _rank() > 0:
            yield
        else:
            with self.workspace.lock(wait=wait):
                yield


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _require_one_process(stage: str) -> None:
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1 and stage != "train":
        raise ConfigError(
            f"stage '{stage}' was started on {ranks} ranks, but only train runs under torchrun; "
            "run the other stages first, without it"
        )
