"""What the teacher and the student of the loss term `distillation` see of a batch, beside the step's own crops.

It is drawn with the batch, by the generator of each (epoch, image): so it is the same on any number of ranks, and
after a stop.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.crops import draw_crop, whole
from training.distillation_settings import Distillation


class Views(NamedTuple):
    """Of a batch of B images with M slots, V views of each for the student.

    whole_B4: the box of the whole picture, the teacher's. crop_BK4: the boxes of smaller crops, V of them or none.
    part_BVM: which captions a view holds.
    """

    whole_B4: Tensor
    crop_BK4: Tensor
    part_BVM: Tensor


class DrawnViews:
    """Draws them, image by image; of those that are not drawn the whole picture is seen, without captions."""

    def __init__(self, config: Distillation, images: int, slots: int) -> None:
        self._config = config
        self._whole_B4 = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (images, 1))
        self._crop_BK4 = np.repeat(self._whole_B4[:, None], config.crops, axis=1)
        self._part_BVM = np.zeros((images, max(config.crops, 1), slots), dtype=bool)

    def draw(self, b: int, width: int, height: int, slots: Sequence[int], rng: np.random.Generator) -> None:
        """For image `b`, of this size and with captions in these slots."""
        self._whole_B4[b] = whole(width, height)
        for crop_4 in self._crop_BK4[b]:
            crop_4[:] = draw_crop(width, height, self._config.crop_scale, rng)
        for part_M in self._part_BVM[b] if slots else ():
            part_M[rng.choice(slots, size=min(self._config.captions, len(slots)), replace=False)] = True

    def made(self) -> Views:
        """For all images."""
        return Views(*map(torch.from_numpy, (self._whole_B4, self._crop_BK4, self._part_BVM)))
