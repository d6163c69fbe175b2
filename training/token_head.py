"""A head that tells from an image's vector which tokens its captions hold (SuperCLIP, arXiv 2512.14480).

One linear layer over the tokens that occur in the captions, shared by the served vector and all branches. It is a part
of training alone: checkpoints have it, models that are served do not.

Vectors come with unit length and are brought to length √D first, so that their numbers are about 1 in size, as after a
normalisation layer. So what is trained is their direction, which is all that an index serves.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pipeline.clip_tokens import START
from training.bundles import Bundles
from training.config import RunConfig
from training.index.frequencies import TokenFrequencies, token_frequencies
from training.losses.features import at_least_float32
from training.model import HolisticCLIP

TILE = 2**24  # logits at once


class TokenHead(nn.Module):
    """K logits of a vector, one for each token that occurs; the start and the end token are none of them."""

    def __init__(self, width: int, frequencies: TokenFrequencies) -> None:
        super().__init__()
        token_K = np.flatnonzero(frequencies.holding_V[:START])
        K = max(1, len(token_K))
        self.linear = nn.Linear(width, K)
        column_V = torch.full((len(frequencies.holding_V),), K)  # behind the last: a token that is not told
        column_V[token_K] = torch.arange(len(token_K))
        weight_K1 = torch.zeros(K + 1)
        weight_K1[: len(token_K)] = torch.from_numpy(inverse_frequency(frequencies)[token_K])
        self.column_V: Tensor
        self.weight_K1: Tensor
        self.register_buffer("column_V", column_V, persistent=False)
        self.register_buffer("weight_K1", weight_K1, persistent=False)

    def forward(self, vector_XD: Tensor, token_XL: Tensor) -> Tensor:
        """Cross entropy (X,) of normalised vectors with the bags of these tokens; 0 where no token is known.

        Logits are made in tiles, and again in backward where there are several.
        """
        rows = max(1, TILE // self.linear.out_features)
        if len(vector_XD) <= rows:
            return self._cross_entropy(vector_XD, token_XL)
        tiles = zip(vector_XD.split(rows), token_XL.split(rows), strict=True)
        return torch.cat([checkpoint(self._cross_entropy, *tile, use_reentrant=False) for tile in tiles])

    def _cross_entropy(self, vector_XD: Tensor, token_XL: Tensor) -> Tensor:
        logit_XK = self.linear(vector_XD * math.sqrt(vector_XD.shape[1]))
        return F.cross_entropy(at_least_float32(logit_XK), self.bags(token_XL), reduction="none")

    def bags(self, token_XL: Tensor) -> Tensor:
        """Targets (X, K) that sum to 1, zeros where no token is known: each token once, by its inverse frequency."""
        column_XL = self.column_V[token_XL]
        weight_XK1 = self.weight_K1.new_zeros(len(token_XL), len(self.weight_K1))
        weight_XK1.scatter_(1, column_XL, self.weight_K1[column_XL])
        return F.normalize(weight_XK1[:, :-1], p=1, dim=1)


def inverse_frequency(frequencies: TokenFrequencies) -> np.ndarray:
    """The weight of each token (V,): the logarithm of 1 over the share of captions that hold it, smoothed."""
    weight_V: np.ndarray = np.log((frequencies.captions + 1) / (frequencies.holding_V + 1))
    return weight_V


def add_token_head(model: HolisticCLIP, config: RunConfig, bundles: Bundles) -> None:
    """Gives the model its head, where the recipe has the term. After all else that is drawn, which stays as it is."""
    if config.has_token_head:
        model.token_head = TokenHead(model.architecture["embed_dim"], token_frequencies(bundles))
