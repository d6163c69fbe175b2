"""Settings of who trains: this process, ranks of this machine, or workers of Ray Train.

Light: reading a configuration must not import torch.
"""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config import Section

MOST_RANKS = 1024


def _both_bounds(value: Any) -> Any:
    """One number of workers is the least and the most."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class RayLaunch(Section):
    """Workers of Ray Train on the cluster that the section `ray` names; their number follows the nodes."""

    workers: Annotated[tuple[int, int], BeforeValidator(_both_bounds)] = Field(
        description="ranks, from the least with which training goes on to the most: [min, max]"
    )
    gpus: int | None = Field(None, ge=0, le=1, description="GPUs of a worker; empty: 1 where the cluster has any")
    cpus: float = Field(1.0, gt=0, description="CPUs of a worker; also its CPU threads")
    resources: dict[str, float] = Field(
        default_factory=dict, description="resources of the cluster's own that a worker takes, such as {big_memory: 1}"
    )
    resize_seconds: float = Field(60.0, gt=0, description="how often to look whether there is room for more workers")
    max_failures: int = Field(
        3, ge=0, description="new starts after failures without a new checkpoint between them, before the run ends"
    )

    @field_validator("workers")
    @classmethod
    def _ordered(cls, workers: tuple[int, int]) -> tuple[int, int]:
        if not 1 <= workers[0] <= workers[1] <= MOST_RANKS:
            raise ValueError(f"expected [min, max] with 1 <= min <= max <= {MOST_RANKS:,}")
        return workers


class Launch(Section):
    """Which processes train."""

    ranks: int = Field(
        1, ge=1, le=MOST_RANKS, description="processes of this machine, on GPUs one each; 1: this process"
    )
    ray: RayLaunch | None = Field(
        None, description="train on a Ray cluster instead: how many workers, and their sizes"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.ray is not None and self.ranks > 1:
            raise ValueError("ranks starts processes here and ray starts them on a cluster; leave one of them out")
        return self
