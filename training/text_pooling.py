"""A second score: what an image says about one text, read from its patches with the text as the query.

The served vector must answer every text at once. Here a text looks at the patches and takes what concerns it (FLAIR,
PAPER 5 idea 3); a null token, a key and value of zeros, lets it find nothing. The score is the cosine of what it found
with the text itself, ⟨v(i|t), t⟩: never with another text, or the model could ignore the image. It costs an attention
for every pair, so it is for the first few candidates of the served vector, not for an index.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

HEAD_WIDTH = 64
TILE = 2**24  # numbers in the pooled vectors of one tile of images


class TextConditionedPooling(nn.Module):
    """Attention of texts over patches, all in the joint space of width D.

    All matrices start as the identity: at first a text attends to the patches that are like it, and takes them as
    they are, which is sensible with patches of a pretrained CLIP.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD_WIDTH if width % HEAD_WIDTH == 0 else 1
        self.norm_patches, self.norm_texts = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = _identity(width), _identity(width)
        self.value, self.out = _identity(width), _identity(width)

    def forward(self, patch_BND: Tensor, text_XD: Tensor, which_BT: Tensor) -> Tensor:
        """Cosines (B, T) of each image's texts, text_XD[which_BT], with what they find in its patches.

        Texts are normalised. In tiles of images that are made again in backward: B · T · D numbers, be they of texts
        or of what they find, never exist at once.
        """
        images = max(1, TILE // (which_BT.shape[1] * text_XD.shape[1]))
        if len(patch_BND) <= images:
            return self._cosines(patch_BND, text_XD, which_BT)
        tiles = zip(patch_BND.split(images), which_BT.split(images), strict=True)
        return torch.cat(
            [checkpoint(self._cosines, patch, text_XD, which, use_reentrant=False) for patch, which in tiles]
        )

    def _cosines(self, patch_BND: Tensor, text_XD: Tensor, which_BT: Tensor) -> Tensor:
        patch_BND, text_BTD = self.norm_patches(patch_BND), text_XD[which_BT]
        q, k, v = self.query(self.norm_texts(text_BTD)), self.key(patch_BND), self.value(patch_BND)
        # The null token comes last, after the projections: its key and value are zeros whatever is learned.
        q_BhTd, k_BhNd, v_BhNd = (self._split(x) for x in (q, F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))))
        pooled_BhTd = F.scaled_dot_product_attention(q_BhTd, k_BhNd, v_BhNd)
        pooled_BTD = F.normalize(self.out(pooled_BhTd.transpose(1, 2).flatten(2)), dim=-1)
        return (pooled_BTD * text_BTD).sum(dim=-1)

    def _split(self, x_BLD: Tensor) -> Tensor:
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def rows_of(text_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """Texts of each image as rows (B · T, D), and which rows are each image's (B, T)."""
    text_XD = text_BTD.flatten(0, 1)
    return text_XD, torch.arange(len(text_XD), device=text_XD.device).view(text_BTD.shape[:2])


def _identity(width: int) -> nn.Linear:
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
