"""From uint8 canvases to normalised crops, on whatever device they are: one batched resampling."""

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_normalise(
    image_BCSS: Tensor, box_B4: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """Cuts each image's box (left, top, width, height; shares of the canvas) out and scales it to (B, 3, size, size).

    Bilinear: canvases are little larger than `size`, so there is nothing for an antialiasing filter to do.
    """
    left, top, width, height = box_B4.unbind(dim=1)
    zero = torch.zeros_like(left)
    # affine_grid speaks of a [-1, 1] square: x_in = width · x_out + (2 · left + width − 1)
    theta_B23 = torch.stack([width, zero, 2 * left + width - 1, zero, height, 2 * top + height - 1], dim=1)
    grid = F.affine_grid(theta_B23.view(-1, 2, 3), [len(image_BCSS), 3, size, size], align_corners=False)
    image = F.grid_sample(image_BCSS.float() / 255, grid, padding_mode="border", align_corners=False)
    to_channel = torch.tensor([mean, std], device=image.device)[:, None, :, None, None]
    return (image - to_channel[0]) / to_channel[1]
