"""Text positions for another context length.

A longer context keeps the first 20 positions, which nearly all captions a CLIP was trained on lie within, and
stretches the rest (Long-CLIP's idea): 77 positions become 248 with a factor of four. A shorter one leaves the last
ones out, and a table too short to be kept and stretched is stretched whole.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

KEPT = 20


def fit_text_positions(table_PW: Tensor, length: int) -> Tensor:
    """The position table of a context of `length` tokens (length, W), from one of P tokens (P, W)."""
    if length <= len(table_PW):
        return table_PW[:length]
    kept = KEPT if len(table_PW) > KEPT + 1 else 0
    rest_1WP = table_PW[kept:].T[None]
    stretched_1WP = F.interpolate(rest_1WP, size=length - kept, mode="linear", align_corners=True)
    return torch.cat([table_PW[:kept], stretched_1WP[0].T])
