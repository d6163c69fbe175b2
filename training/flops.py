"""Model FLOPs utilisation: the towers' operations in a step, as a share of what the GPU could do in its time.

Operations are those of the towers' forward and backward pass (frozen weights have less of it), counted by torch once
before training. What is computed again (micro-batches, activation checkpointing), the loss and the optimizer do not
count, as is usual.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training.config import RunConfig
from training.model import HolisticCLIP
from training.ranks import Ranks

# Dense bf16 operations per second by the vendors' data sheets; the first name that the device's name holds counts.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A40": 150e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
}


@dataclass(frozen=True)
class TowerFlops:
    """Operations of a forward and backward pass: of one image, and of one text by its length."""

    image: float
    text: tuple[float, float, float]  # of L², L and 1: attention is the only part that is not linear in the length

    def __call__(self, images: int, texts: Sequence[Tensor]) -> float:
        """Of a rank's share of a batch; texts (T, L) by length group."""
        of_texts = sum(count * self.of_text(length) for count, length in (text_TL.shape for text_TL in texts))
        return images * self.image + of_texts

    def of_text(self, length: int) -> float:
        """Of one text of so many tokens, padding included."""
        square, linear, constant = self.text
        return square * length**2 + linear * length + constant


@dataclass(frozen=True)
class Utilisation:
    """What a step takes, of a rank's share of a batch, and what all ranks' GPUs together could do in a second."""

    flops: TowerFlops
    peak: float


def utilisation(model: HolisticCLIP, config: RunConfig, ranks: Ranks) -> Utilisation | None:
    """To be asked before the towers are compiled; None where the speed of the device is not known."""
    if ranks.device.type != "cuda" or config.precision != "bf16":
        return None
    peak = peak_flops(torch.cuda.get_device_name(ranks.device))
    if peak is None:
        return None
    flops = count(model, ranks.device)
    return Utilisation(replace(flops, image=0.0) if config.cache_features else flops, peak * ranks.count)


def peak_flops(device: str) -> float | None:
    """Of a device by its name."""
    return next((peak for known, peak in PEAKS.items() if known in device), None)


def count(model: HolisticCLIP, device: torch.device) -> TowerFlops:
    """Counts on the device itself, with one image and with texts of three lengths, which decide a parabola."""
    side = model.visual.image_size[0]
    image = _of_pass(model, lambda: model.visual(torch.zeros(1, 3, side, side, device=device)))

    def of_text(length: int) -> float:
        text_TL = torch.ones(1, length, dtype=torch.long, device=device)
        return _of_pass(model, lambda: model.encode_text(text_TL))

    lengths = np.linspace(4, model.context_length, 3).astype(int)
    texts = [of_text(length) for length in lengths.tolist()]
    square, linear, constant = (float(part) for part in np.polyfit(lengths, texts, 2))
    return TowerFlops(image, (square, linear, constant))


def _of_pass(model: HolisticCLIP, encode: Callable[[], Tensor]) -> float:
    """Operations of a forward and backward pass, which leaves no gradients and draws no random numbers.

    Attention is done in plain products: of the fused kernels torch counts those of some devices only.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gpus = {parameter.device for parameter in trained if parameter.is_cuda}
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(gpus), sdpa_kernel(SDPBackend.MATH), counter:
        made = encode()
        if made.requires_grad:
            torch.autograd.grad(made.sum(), trained, allow_unused=True)
    return float(counter.get_total_flops())
