"""A model of ours that is no run of this workspace: a folder, a checkpoint or an ONNX export."""

from __future__ import annotations

import training
from evaluation.encoder import Encoder
from evaluation.models.source import Source


def load(name: str, source: Source) -> Encoder:
    """By `training.load`, which knows the forms apart."""
    model, preprocess, tokenizer = training.load(source.place)
    return Encoder(name, source.digest, source.digest, model, preprocess, tokenizer, tuple(model.slots))
