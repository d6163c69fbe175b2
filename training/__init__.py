"""Stage two: a CLIP whose image side has several branches, each matched with its own kind of caption.

model, preprocess, tokenizer = training.load("WS/train/holism-0123456789ab/model")
"""

from typing import Any


def load(path: Any, device: str = "cpu") -> tuple[Any, Any, Any]:
    """(model, preprocess, tokenizer) of a trained run, as users of open_clip expect: `training.checkpoint.load`.

    An `image.onnx` stands for the ONNX export that it is part of: `training.onnx_model.load_onnx`.
    """
    from pipeline.storage import Location
    from training.checkpoint import load as load_checkpoint
    from training.onnx_model import IMAGE_FILE, load_onnx

    location = Location.of(path)
    if location.name == IMAGE_FILE:
        return load_onnx(location.parent)

    return load_checkpoint(path, device)
