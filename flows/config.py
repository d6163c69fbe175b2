"""The whole configuration: one section per stage, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import fsspec
from pydantic import Field, field_validator, model_validator

from captioning.config import CaptionConfig
from captioning.curate.config import CurateConfig
from evaluation.config import EvaluateConfig
from flows.stages import STAGES
from pipeline.cluster.config import ClusterConfig
from pipeline.config import Section, apply_overrides, build, load_yaml, merge, operational
from pipeline.ingest.config import IngestConfig
from training.config import TrainConfig


class FlowConfig(Section):
    """How Prefect treats a stage's task."""

    retries: int = operational(1, ge=0, description="runs of a failed stage after the first; user errors never retry")
    retry_delay_seconds: float = operational(10.0, ge=0, description="wait before a failed stage runs again")
    timeout_hours: float | None = operational(None, gt=0, description="a stage that takes longer fails")


class HolismConfig(Section):
    """Everything a run needs."""

    workspace: str = operational(description="folder or URI (s3://, gs://) that keeps all results")
    ingest: IngestConfig | None = Field(
        None, description="images: where they come from and how they are stored; only evaluate.models do without"
    )
    caption: CaptionConfig = Field(default_factory=CaptionConfig, description="who is asked what about the images")
    curate: CurateConfig = Field(default_factory=CurateConfig, description="which captions are kept")
    train: TrainConfig = Field(default_factory=TrainConfig, description="the models and their recipe")
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="what is measured, and on what")
    ray: ClusterConfig = operational(default_factory=ClusterConfig, description="the Ray cluster of all stages")
    flow: FlowConfig = Field(default_factory=FlowConfig, description="how Prefect treats a stage")

    @field_validator("workspace")
    @classmethod
    def _can_be_reached(cls, workspace: str) -> str:
        scheme, separator, _ = workspace.partition("://")
        if separator and scheme not in fsspec.available_protocols():
            raise ValueError(f"there are no files under {scheme}://; expected a folder, or s3://, gs:// or the like")
        if not workspace.strip() or "\0" in workspace:
            raise ValueError("expected a folder or URI")
        return workspace

    @model_validator(mode="before")
    @classmethod
    def _models_alone(cls, data: Any) -> Any:
        """Without images nothing is trained here: what can be measured are models of others."""
        if not isinstance(data, Mapping) or data.get("ingest") is not None:
            return data
        evaluate = data.get("evaluate")
        if isinstance(evaluate, Mapping) and evaluate.get("models"):
            return merge(data, {"evaluate": {"runs": False}})
        return data

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if self.ingest is None and self.evaluate.runs:
            raise ValueError("'ingest' is missing: add it to the configuration, or name evaluate.models to measure")
        return self

    @model_validator(mode="after")
    def _somebody_answers(self) -> Self:
        if self.curate.regenerate.rounds and not self.caption.models:
            raise ValueError(
                f"curate.regenerate.rounds is {self.curate.regenerate.rounds}, but caption.models is empty, so there "
                "is nobody to ask again; name a model or set the rounds to 0"
            )
        return self

    def sections(self) -> Mapping[str, Section]:
        """The stages' sections by stage name."""
        found = {stage.name: getattr(self, stage.name) for stage in STAGES}
        return {name: section for name, section in found.items() if section is not None}


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> HolismConfig:
    """Read, override and validate a configuration file, or none ("").

    Every problem is a `ConfigError` that names the key.
    """
    data = apply_overrides(load_yaml(path) if path else {}, overrides)
    return build(HolismConfig, data, source=str(path) or "command line")
