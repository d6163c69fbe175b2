"""Phase A: the vision tower learns to see before a word is spoken.

Trained through language alone, a small tower takes hours to find the image behind the text. Direct supervision with
the scene's attributes, and with the shape and colour that fill each patch, takes minutes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModel

from captioning.demo_vlm.pool import FIRST_SEED
from pipeline.demo_world.scene import sample, truth
from pipeline.demo_world.vocabulary import BACKGROUNDS, COLORS, PLACES, SHAPES, SIGNS, SIZES, STYLES

IGNORE = -100
_BARE = 0.02  # weight of a patch without an object; all patches of one object together weigh 1
_GLOBAL: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "size": tuple(SIZES),
    "place": PLACES,
    "background": tuple(BACKGROUNDS),
    "style": tuple(STYLES),
    "sign": ("none", *SIGNS),
}


def scene_targets(t: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Class index per global attribute (IGNORE where hidden), and which shapes are present: 0.0 or 1.0 per shape."""
    main = t["main"]
    words = {
        "shape": main["shape"], "color": main["color"], "size": t["size"], "place": main["place"],
        "background": t["background"], "style": t["style"], "sign": t["sign"] or "none",
    }  # fmt: skip
    classes = [IGNORE if words[key] is None else _GLOBAL[key].index(words[key]) for key in _GLOBAL]
    shapes = {main["shape"], *(other["shape"] for other in t["others"])}
    return classes, [float(shape in shapes) for shape in SHAPES]


def pool_targets(scenes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of all pool scenes: classes int16 (scenes, attributes) and presence uint8 (scenes, shapes)."""
    classes = np.empty((scenes, len(_GLOBAL)), np.int16)
    present = np.empty((scenes, len(SHAPES)), np.uint8)
    for row in range(scenes):
        classes[row], present[row] = scene_targets(truth(sample(FIRST_SEED + row)))
    return torch.from_numpy(classes), torch.from_numpy(present)


class AttributeHeads(nn.Module):
    """Linear read-outs of the patch tokens, thrown away after phase A."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.patch_shape = nn.Linear(width, len(SHAPES) + 1)
        self.patch_color = nn.Linear(width, len(COLORS) + 1)
        self.present = nn.Linear(width, len(SHAPES))
        self.globals = nn.ModuleDict({name: nn.Linear(width, len(words)) for name, words in _GLOBAL.items()})

    def forward(
        self, patch_BPD: torch.Tensor, label_B2P: torch.Tensor, classes_BA: torch.Tensor, present_BS: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The summed loss and the accuracy of each read-out."""
        patch_BPD = self.norm(patch_BPD)
        pooled_BD = patch_BPD.mean(1)
        loss, seen = torch.zeros((), device=patch_BPD.device), {}
        weight = object_weights(label_B2P[:, 0]).flatten()
        for channel, head in ((0, self.patch_shape), (1, self.patch_color)):
            target = label_B2P[:, channel].long()
            target = target.masked_fill(target == 255, IGNORE).flatten()
            logits = head(patch_BPD).float().flatten(0, 1)
            wrong = F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
            loss = loss + 2 * (wrong * weight).sum() / weight.sum()
            if channel == 0:
                seen["patch"] = _accuracy(logits, target.masked_fill(target == 0, IGNORE))
        for column, (name, head) in enumerate(self.globals.items()):
            target, logits = classes_BA[:, column].long(), head(pooled_BD).float()
            loss = loss + 0.5 * F.cross_entropy(logits, target, ignore_index=IGNORE)
            seen[name] = _accuracy(logits, target)
        logits, target = self.present(pooled_BD).float(), present_BS.float()
        loss = loss + 4 * F.binary_cross_entropy_with_logits(logits, target)
        seen["all_present"] = float(((logits > 0) == (target > 0)).all(1).float().mean())
        return loss, seen


def object_weights(shape_BP: torch.Tensor) -> torch.Tensor:
    """Weights (B, P) under which all objects of an image count alike, however few patches they fill; bare patches
    count little."""
    same_BPP = shape_BP[:, :, None] == shape_BP[:, None, :]
    return torch.where(shape_BP > 0, 1 / same_BPP.sum(-1), _BARE)


def _accuracy(logits: torch.Tensor, target: torch.Tensor) -> float:
    known = target != IGNORE
    return float((logits.argmax(-1) == target)[known].float().mean())


def normalise(image_BHWC: torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, 3) to the tower's float (B, 3, H, W) in -1 to 1, as the image processor does."""
    return (image_BHWC.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def patch_tokens(tower: CLIPVisionModel, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """The tower's last layer without its class token (B, P, D): what the language model will see."""
    return tower(pixels_BCHW).last_hidden_state[:, 1:]
