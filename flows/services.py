"""What one package does for another, handed to the stages as callables: packages need not import each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import training
from captioning.curate.measures.dual_encoder import LOAD_CHECKPOINT
from captioning.curate.regenerate import SERVICE as CAPTION_AGAIN
from captioning.rounds import Round
from evaluation.in_training import InTraining
from flows.config import HolismConfig
from pipeline.manifest import Manifest
from pipeline.workspace import Workspace
from training.stage import EVALUATOR


def of(config: HolismConfig, inputs: Mapping[str, Manifest], workspace: Workspace) -> dict[str, Any]:
    """The services by name. They import what they need when they are called."""

    def caption_again(further: Round, retry_failed: bool) -> Manifest:
        from captioning.stage import run_round

        return run_round(config.caption, inputs["ingest"], workspace, further, config.ray, retry_failed=retry_failed)

    return {
        CAPTION_AGAIN: caption_again,
        LOAD_CHECKPOINT: training.load,
        EVALUATOR: InTraining(config.evaluate),
    }
