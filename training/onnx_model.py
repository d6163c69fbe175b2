"""A model that was exported as ONNX, read back: two towers in ONNX Runtime, with the calls of a model of ours."""

import json
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, InputError
from pipeline.storage import Location
from training.preprocess import make_preprocess

IMAGE_FILE, TEXT_FILE = "image.onnx", "text.onnx"
ABOUT = "holism"  # key of what image.onnx says of the model, as JSON: branches and preprocessing
ON_GPU, ON_CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxCLIP(nn.Module):
    """Branches of images and vectors of texts, all normalised."""

    text_pooling = None

    def __init__(self, image: Any, text: Any, slots: tuple[str, ...]) -> None:
        super().__init__()
        self.image, self.text, self.slots = image, text, slots
        self.context_length = int(text.get_inputs()[0].shape[1])

    def encode_branches(self, image_BCSS: Tensor) -> Tensor:
        """All branches of each image, (B, H, D)."""
        return torch.from_numpy(self.image.run(["branches"], {"image": image_BCSS.cpu().numpy()})[0])

    def encode_text(self, text_TL: Tensor) -> Tensor:
        """Texts (T, D) from token ids (T, L); those that are narrower than the context are padded."""
        padded_TL = text_TL.new_zeros(len(text_TL), self.context_length)
        padded_TL[:, : text_TL.shape[1]] = text_TL
        return torch.from_numpy(self.text.run(["served"], {"text": padded_TL.cpu().numpy()})[0])


def load_onnx(folder: Location) -> tuple[OnnxCLIP, Any, open_clip.SimpleTokenizer]:
    """(model, preprocess, tokenizer) of a folder that `holism export --forms onnx` wrote.

    Raises InputError where it is none, or one that does not say how pictures are prepared.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError(
            "reading ONNX files needs the package onnxruntime, which is not installed; install the extra: "
            "uv pip install -e .[onnx]"
        ) from error
    providers = [name for name in (ON_GPU, ON_CPU) if name in onnxruntime.get_available_providers()]
    try:
        sessions = [
            onnxruntime.InferenceSession((folder / name).read(), providers=providers)
            for name in (IMAGE_FILE, TEXT_FILE)
        ]
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no ONNX export: it lacks {IMAGE_FILE} or {TEXT_FILE}") from error
    except Exception as error:  # ONNX Runtime has a class of its own for each thing that can be wrong
        raise InputError(f"the ONNX files in {folder} cannot be run ({str(error).splitlines()[0]})") from error
    said = sessions[0].get_modelmeta().custom_metadata_map.get(ABOUT)
    if said is None:
        raise InputError(
            f"{folder / IMAGE_FILE} does not say how pictures are prepared for it: it is no export of ours, or an old "
            "one; export the model again"
        )
    about = json.loads(said)
    model = OnnxCLIP(sessions[0], sessions[1], tuple(about["branches"])).eval()
    return model, make_preprocess(about["preprocess"]), open_clip.SimpleTokenizer(context_length=model.context_length)
