"""Where each branch looks: the picture, lit where the branch's class token attends in the last block.

Attention says where a token gathers from, not what it makes of it, so these pictures illustrate and prove nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

from evaluation.benchmarks import Benchmark
from evaluation.encoder import Encoder
from pipeline import pictures
from pipeline.thumbnails import SIDE, data_uri

PICTURES = 5
DARKEST = 0.18  # brightness of what a branch does not look at


@dataclass(frozen=True)
class Looks:
    """A picture, and the same picture as each branch looks at it, as data URIs."""

    file: str
    picture: str
    branches: tuple[str, ...]


@torch.inference_mode()
def looks(encoder: Encoder, benchmark: Benchmark, seed: int) -> list[Looks]:
    """A few pictures drawn by seed; none for a model of one branch, or one whose attention cannot be read."""
    class_attention = getattr(getattr(encoder.model, "visual", None), "class_attention", None)
    if len(encoder.branches) < 2 or class_attention is None:
        return []
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(benchmark.files), size=min(PICTURES, len(benchmark.files)), replace=False))
    images = [_open(benchmark, int(index)) for index in drawn]
    image_BCSS = torch.stack([encoder.preprocess(image) for image in images])
    device = next(encoder.model.parameters()).device
    weight_BHRC = class_attention(image_BCSS.to(device)).float().cpu().numpy()
    return [
        _looks(benchmark.files[index], image, weight_HRC)
        for index, image, weight_HRC in zip(drawn, images, weight_BHRC, strict=True)
    ]


def _open(benchmark: Benchmark, index: int) -> Image.Image:
    return pictures.decode(benchmark.image(index).read())[0]


def _looks(file: str, image: Image.Image, weight_HRC: Sequence[np.ndarray]) -> Looks:
    square = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.LANCZOS)  # the centre crop that the model sees
    return Looks(file, data_uri(square), tuple(data_uri(lit(square, weight_RC)) for weight_RC in weight_HRC))


def lit(image: Image.Image, weight_RC: np.ndarray) -> Image.Image:
    """The image, as bright as it is attended to; the most attended patch keeps its full brightness."""
    span = weight_RC.max() - weight_RC.min()
    share_RC = (weight_RC - weight_RC.min()) / span if span > 0 else np.ones_like(weight_RC)
    mask = Image.fromarray((255 * share_RC).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    dark = Image.eval(image, lambda value: round(DARKEST * value))
    return Image.composite(image, dark, mask)
