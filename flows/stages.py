"""The five stages in order. Importing them loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from captioning.curate.stage import STAGE as CURATE
from captioning.stage import STAGE as CAPTION
from evaluation.stage import STAGE as EVALUATE
from pipeline.errors import ConfigError
from pipeline.ingest.stage import STAGE as INGEST
from pipeline.stage import Stage
from training.stage import STAGE as TRAIN

STAGES: tuple[Stage, ...] = (INGEST, CAPTION, CURATE, TRAIN, EVALUATE)
StageName = Literal["ingest", "caption", "curate", "train", "evaluate"]  # a choice in Prefect's form
NAMES: tuple[str, ...] = get_args(StageName)


def select(names: Sequence[str] | None) -> tuple[Stage, ...]:
    """The named stages, upstream first; all of them for None."""
    if names is None:
        return STAGES
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise ConfigError(f"unknown stages {unknown}: expected some of {', '.join(NAMES)}")
    return tuple(stage for stage in STAGES if stage.name in names)
