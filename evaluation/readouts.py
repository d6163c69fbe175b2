"""From the branches of an image to one score per text: the ways to read a multi-branch encoder out.

Every readout is a set of G vectors per image, and an image's score for a text is the largest of their products with
it. With G=1 that is an ordinary index; `max` keeps all H branches and costs H times as much.

    mean          the mean of the branches, renormalised: what is served
    paper_mean    the same, not renormalised: exactly the mean of the branches' logits (PAPER 1.4). Per image it is a
                  constant factor, so image-to-text and classification equal `mean`; text-to-image favours images
                  whose branches agree
    max           the best branch for each text
    branch:NAME   one branch alone
    weighted      the mean by weights that are learnt, renormalised (`evaluation.branch_weights`); of retrieval alone
    rerank        no set of vectors: what `mean` finds first, put in order by a second score (`evaluation.rerank`)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.config import BRANCHES

PREFIX = "branch:"
RERANK, WEIGHTED = "rerank", "weighted"


def expand(
    readouts: Sequence[str], names: Sequence[str], second_score: bool = False, fitted: bool = False
) -> list[str]:
    """The readouts a model with these branches has, in order; with one branch all sets of vectors are `mean`.

    `fitted` for those who can fit weights.
    """
    found: list[str] = []
    for readout in readouts:
        if readout == WEIGHTED and not fitted:
            continue
        if readout == RERANK:
            found += [RERANK] if second_score else []
        elif len(names) == 1:
            found.append("mean")
        elif readout == BRANCHES:
            found += [PREFIX + name for name in names]
        elif not readout.startswith(PREFIX) or readout.removeprefix(PREFIX) in names:
            found.append(readout)
    return list(dict.fromkeys(found))


def vectors(readout: str, branch_NHD: Tensor, names: Sequence[str]) -> Tensor:
    """The vectors (N, G, D) that stand for each image, in float32; `branch_NHD` is normalised."""
    if readout == "max":
        return branch_NHD.float()
    if readout.startswith(PREFIX):
        index = list(names).index(readout.removeprefix(PREFIX))
        return branch_NHD[:, index : index + 1].float()
    mean_NGD = branch_NHD.float().mean(dim=1, keepdim=True)
    if readout == "paper_mean":
        return mean_NGD
    if readout == "mean":
        return F.normalize(mean_NGD, dim=-1)
    raise ValueError(f"unknown readout {readout!r}")


def scores(vector_NGD: Tensor, text_TD: Tensor) -> Tensor:
    """Score of every image for every text, (N, T)."""
    n, groups, _ = vector_NGD.shape
    product = vector_NGD.flatten(0, 1) @ text_TD.T
    return product if groups == 1 else torch.amax(product.view(n, groups, -1), dim=1)
