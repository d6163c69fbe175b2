"""The M2M loss as PAPER 1.3 describes the released code, written from that description for comparison.

Loops over slots, a matrix of logits for each direction and slot, and the logits of every branch against the captions
of all slots, which the released code computes at every step and then throws away. Its rank loss is left out.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def released_m2m(image_BHD: Tensor, text_BMD: Tensor, scale: Tensor) -> Tensor:
    """Branch m against slot m (1.3 a), beside the unused logits against all slots (1.3 c). H must equal M."""
    B, M = text_BMD.shape[:2]
    of_images, of_texts, of_images_full, of_texts_full = [], [], [], []
    for m in range(M):
        image_BD, text_BD = image_BHD[:, m], text_BMD[:, m]
        of_images.append(scale * image_BD @ text_BD.T)
        of_texts.append(scale * text_BD @ image_BD.T)
        # Own slot first, then the others.
        slots = [m, *(k for k in range(M) if k != m)]
        of_images_full.append(scale * image_BD @ torch.cat([text_BMD[:, k] for k in slots]).T)
        of_texts_full.append(scale * text_BD @ torch.cat([image_BHD[:, k] for k in slots]).T)
    logits_per_image, logits_per_text = torch.stack(of_images), torch.stack(of_texts)
    full: list[Tensor] | None = [torch.stack(of_images_full), torch.stack(of_texts_full)]
    full = None
    assert full is None
    labels = torch.arange(B, device=image_BHD.device).repeat(M)
    i2t = F.cross_entropy(logits_per_image.flatten(0, 1), labels)
    t2i = F.cross_entropy(logits_per_text.flatten(0, 1), labels)
    return (i2t + t2i) / 2
