"""A model as evaluation sees it, whoever trained it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image
from torch import Tensor


class Model(Protocol):
    """What a model has to do.

    One with a second score has `text_pooling`, and also `encode_patches(image_BCSS, normalize=False) -> (B, P, D)` and
    `conditioned_cosines(patch_BPD, text_BTD) -> (B, T)`.

    One whose patches can be compared with texts has `patch_maps(image_BCSS) -> (B, G, rows, columns, D)` with G=H, or
    G=1 where all branches have the same, and `last_attention`, the module of the image tower's last block. One of
    several branches also has `attended_maps`, of the same shape with G=H (`evaluation.patch_maps`).
    """

    def encode_branches(self, image_BCSS: Tensor) -> Tensor:
        """Vectors of each image, (B, H, D); H is 1 for a model of one image vector."""

    def encode_text(self, text_TL: Tensor) -> Tensor:
        """Vectors of texts, (T, D)."""


@dataclass(frozen=True)
class Encoder:
    """A model, how pictures and texts reach it, the names of its branches, and who it is."""

    run: str  # its name: of the training run, or as `evaluate.models` calls it
    fingerprint: str  # of the training run, or of the model's files; stands in the results
    weights: str  # digest of the model's files (weights, preprocessing); decides whether cached features hold
    model: Any  # a torch module that is a `Model`
    preprocess: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[list[str]], Tensor]
    branches: tuple[str, ...]
    cuts_texts: bool = True  # whether texts padded with 0 may be cut anywhere after their last token
    again: Callable[[], Encoder] | None = None  # loads it once more, in another process; can be pickled

    @property
    def second_score(self) -> bool:
        return getattr(self.model, "text_pooling", None) is not None
