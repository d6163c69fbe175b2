"""A moving average of a model's weights (EMA): after each step it goes a small way towards what they are now.

The average is steadier than the weights of any one step, and often the better model (Polyak and Juditsky 1992). It
follows from the steps alone, so every rank has the same and none has to ask.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.model import HolisticCLIP


def decay_at(decay: float, step: int) -> float:
    """What the average keeps of itself in a step, counted from 0: little at first, so that the start is forgotten."""
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """`model` has the averaged weights, in the precision of the weights themselves; nothing trains it.

    To be made before the towers are compiled. Frozen weights are shared with the model that is followed.
    """

    def __init__(self, followed: HolisticCLIP, decay: float) -> None:
        frozen: dict[int, Any] = {id(weight): weight for weight in followed.parameters() if not weight.requires_grad}
        self.model = copy.deepcopy(followed, frozen).requires_grad_(False).eval()
        self._decay = decay
        pairs = zip(self.model.parameters(), followed.parameters(), strict=True)
        self._weights = [(mean, now) for mean, now in pairs if mean is not now]
        # Buffers are no weights: counts, masks, and statistics that are averages already.
        self._buffers = list(zip(self.model.buffers(), followed.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the optimizer's step of this number."""
        if self._weights:
            means, now = zip(*self._weights, strict=True)
            torch._foreach_lerp_(means, now, 1 - decay_at(self._decay, step))
        for kept, buffer in self._buffers:
            kept.copy_(buffer)

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint: all weights, so that it is a model's whole state."""
        return self.model.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """From a checkpoint."""
        self.model.load_state_dict(state)
