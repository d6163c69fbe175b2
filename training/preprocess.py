"""From a picture to what the model takes, as training saw it: one callable for evaluation and everybody else."""

from collections.abc import Mapping, Sequence
from typing import Any

from open_clip.transform import PreprocessCfg, image_transform_v2
from torchvision.transforms import Compose

from pipeline.pictures import upright_rgb

# What comes before the scaling. In a model's description, so that whoever reads it need not guess.
SEEN = {"orientation": "exif", "background": "white", "mode": "RGB"}


def preprocessing(size: int, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """The description of a model's preprocessing, as plain JSON data."""
    return {**SEEN, "size": size, "mean": list(mean), "std": list(std), "interpolation": "bicubic"}


def make_preprocess(description: Mapping[str, Any]) -> Compose:
    """PIL image (any mode, turned by EXIF or not) to (3, size, size): upright, on white, in RGB, then open_clip's."""
    settings = {name: value for name, value in description.items() if name not in SEEN}
    theirs = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    return Compose([upright_rgb, *theirs.transforms])
