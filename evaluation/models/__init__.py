"""Models of others beside our runs: one file for each form they come in.

    evaluate:
      models:
        openai: open_clip:ViT-B-32-quickgelu:openai     a model of open_clip's with a tag or a path to weights
        theirs: open_clip:local-dir:FOLDER              open_clip's own folder form, and hf-hub:ORGANISATION/MODEL
        siglip: models/siglip-base-patch16-224          a folder of transformers with a CLIP or SigLIP
        ours: exports/first                             a Holism export, a run's model folder, a checkpoint step-N.pt
        small: exports/first/image.onnx                 an ONNX export

`source.py` says what a text like these names, and what its identity is, without torch. Pictures are prepared as each
model's own files say, after they are put upright and on white as for everybody.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from evaluation.models.source import Source

if TYPE_CHECKING:
    from evaluation.encoder import Encoder


def load(name: str, text: str) -> Encoder:
    """The model that `text` names, called `name`. Raises ConfigError or InputError where there is none."""
    source = Source.of(text)
    loader = import_module(f"{__name__}.{source.kind}")
    encoder: Encoder = loader.load(name, source)
    return encoder
