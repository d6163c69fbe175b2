"""What stands at each patch of a picture, to be compared with texts: the maps that a model can give.

    patches          patch tokens of the last block, through the final norm and the projection. Branches that share all
                     of this have one map in common, which is the served vector's
    value_attention  the same, where the last block's patches attend by the likeness of their values: a widely used
                     change without training, after which a patch stays nearer to what is in it (CLIP Surgery, Li et
                     al. 2023; SCLIP does it with queries and keys)
    attended         what the last block's attention gives a branch's vector from each patch: every branch has its own

The served vector's map is the mean over branches. A patch's score is its cosine with a text, except in the pointing
game by `attended`, where a product keeps how much a branch takes from a patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation.config import BRANCHES, DenseMap
from evaluation.encoder import Encoder
from evaluation.readouts import PREFIX
from evaluation.task import SERVED


def kinds_of(encoder: Encoder, wanted: Sequence[DenseMap]) -> list[DenseMap]:
    """Those of the wanted maps that a model has."""
    method: dict[DenseMap, str] = {
        "patches": "patch_maps",
        "value_attention": "patch_maps",
        "attended": "attended_maps",
    }
    return [kind for kind in wanted if hasattr(encoder.model, method[kind])]


@torch.inference_mode()
def maps(model: Any, image_BCSS: Tensor, kind: DenseMap) -> Tensor:
    """The maps of pictures, (B, G, rows, columns, D), of a kind that the model has; tokens are normalised."""
    if kind == "attended":
        attended: Tensor = model.attended_maps(image_BCSS)
        return attended.float()
    with value_attention(model.last_attention) if kind == "value_attention" else nullcontext():
        return F.normalize(model.patch_maps(image_BCSS).float(), dim=-1)


def readouts_of(kind_map_G: int, branches: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The readouts that G maps give: the served vector's, and each branch's where it has its own."""
    if kind_map_G == 1 or len(branches) == 1:
        return [SERVED]
    named = [PREFIX + name for name in branches if BRANCHES in wanted or PREFIX + name in wanted]
    return [SERVED, *named]


def read_out(map_GX: Tensor, readout: str, branches: Sequence[str]) -> Tensor:
    """A readout's map, of what has branches in front."""
    if readout == SERVED:
        return map_GX.mean(dim=0)
    return map_GX[list(branches).index(readout.removeprefix(PREFIX))]


@contextmanager
def value_attention(attention: nn.Module) -> Iterator[None]:
    """While it lasts, an attention compares values with values: their weights stand for those of queries and keys."""
    if hasattr(attention, "in_proj_weight"):  # queries, keys and values below each other
        stacked = [weight for weight in (attention.in_proj_weight, attention.in_proj_bias) if weight is not None]
        changed = [(weight.data, weight.data.chunk(3)[2].repeat(3, *[1] * (weight.ndim - 1))) for weight in stacked]
    else:
        changed = [
            (getattr(layer, name).data, getattr(attention.v_proj, name).data)
            for layer in (attention.q_proj, attention.k_proj)
            for name in ("weight", "bias")
            if getattr(layer, name) is not None
        ]
    before = [weight.clone() for weight, _ in changed]
    try:
        for weight, other in changed:
            weight.copy_(other)
        yield
    finally:
        for (weight, _), own in zip(changed, before, strict=True):
            weight.copy_(own)
