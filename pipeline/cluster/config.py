"""Settings: the cluster, one for all stages, and what each stage asks of it."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from pipeline.config import Section, operational


class ClusterConfig(Section):
    """The Ray cluster. Without an address (and without RAY_ADDRESS) a Ray of this machine alone is started."""

    address: str | None = operational(None, description="host:port or ray://host:port; empty: RAY_ADDRESS, or here")
    token_path: str | None = operational(
        None, description="file with the token of a cluster that asks for one; empty: Ray's own variables"
    )
    num_cpus: int | None = operational(
        None, ge=1, description="logical CPUs of a Ray that is started here; empty: all cores"
    )
    schedule_seconds: float = operational(20.0, gt=0, description="how long the cluster may take to find room")


class ActorsConfig(Section):
    """How many actors a stage has, and what each takes.

    All of them start at once, unless `min` says with how many to begin; more come while work is waiting.
    """

    min: int | None = operational(None, ge=1, description="actors to begin with; empty: max")
    max: int | None = operational(None, ge=1, description="empty: as many as fit")
    cpus: float = operational(1.0, gt=0, description="CPUs of an actor; also the threads of an engine on a CPU")
    gpus: float | None = operational(
        None, ge=0, description="GPUs of an actor; empty: what its engine needs, where there are GPUs"
    )
    resources: dict[str, float] = operational(
        default_factory=dict, description="resources of the cluster's own, such as {big_memory: 1}"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.min is not None and self.max < self.min:
            raise ValueError(f"max is {self.max}, expected at least min, which is {self.min}")
        return self


class StageRayConfig(Section):
    """A stage's own part of the cluster."""

    moved: ClassVar = {name: f"ray.{name}" for name in ("address", "num_cpus", "schedule_seconds")}

    enabled: bool = operational(True, description="false, or Ray not installed: in this process")
    actors: ActorsConfig = operational(default_factory=ActorsConfig, description="how many actors, and their sizes")
