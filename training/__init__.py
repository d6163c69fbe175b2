"""Stage two: a CLIP whose image side has several branches, each matched with its own kind of caption.

model, preprocess, tokenizer = training.load("WS/train/holism-0123456789ab/model")
"""

from typing import Any


def load(path: Any, device: str = "cpu") -> tuple[Any, Any, Any]:
    """(model, preprocess, tokenizer) of a trained run, as users of open_clip expect: `training.checkpoint.load`."""
    from training.checkpoint import load as load_checkpoint

    return load_checkpoint(path, device)
