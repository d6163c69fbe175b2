"""Branch health: are all branches of use, and do they say different things?

Free matching can starve a branch: what is never chosen is only ever pushed away (PAPER 1.3 b). M2M by slot cannot, yet
there too a branch may end as nobody's best, not even its own slot's. Both show in the share of captions that choose a
branch among those of their image. It is logged at every step, and a branch that is hardly chosen is warned of by name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from training.losses import Features
from training.losses.branch_cosines import branch_cosines, mean_off_diagonal
from training.losses.free_matching import MATCHINGS
from training.losses.matching import choosing_slots, hard

WINDOW = 100  # steps over which usage is judged
DEAD_SHARE = 0.1  # of a fair share; a branch with less is dead


@torch.no_grad()
def branch_health(features: Features, branches: Sequence[str], losses: Mapping[Any, float]) -> dict[str, Tensor]:
    """What is logged of a step: `branch_cosine` (mean over pairs), `branch_cosine_max`, and `usage/BRANCH`.

    A single branch has cosine 1 and no usage.
    """
    if features.branches == 1:
        return {"branch_cosine": features.scale.new_ones(())}
    cosine_HH = branch_cosines(features)
    others_HH = cosine_HH - torch.diag(torch.full_like(cosine_HH[0], 2.0))  # below every cosine of two branches
    shares = usage(features, losses)
    return {
        "branch_cosine": mean_off_diagonal(cosine_HH),
        "branch_cosine_max": others_HH.max(),
        **{f"usage/{name}": share for name, share in zip(branches, shares, strict=True)},
    }


@torch.no_grad()
def usage(features: Features, losses: Mapping[Any, float]) -> Tensor:
    """Share of the captions that each branch is chosen by (H,), of this rank; the mean over ranks is the batch's.

    By the free matching that is trained with, over the slots that it lets choose; where there is none, by the most
    similar branch, over all captions.
    """
    match = next((match for name, match in MATCHINGS.items() if name in losses), None)
    choosing = features.of_slots(choosing_slots(features)) if match else features
    if not choosing.slots:
        choosing = features
    weight_BMH = (match or hard)(choosing)
    captions = choosing.mask_NM.sum().clamp(min=1)
    return torch.einsum("bmh,bm->h", weight_BMH, choosing.mask_BM.to(weight_BMH.dtype)) * features.ranks / captions


def dead_branches(rows: Sequence[Mapping[str, Any]], branches: Sequence[str]) -> dict[str, str]:
    """A warning for each branch that the captions of the last steps hardly chose, by its name.

    `rows` are lines of the metrics; fewer than a whole window of them judge nobody. Lines without usage, of a single
    branch or from before it was logged, do not count.
    """
    rows = [row for row in rows if f"usage/{branches[0]}" in row][-WINDOW:]
    if len(rows) < WINDOW:
        return {}
    warnings = {}
    for name in branches:
        share = sum(row[f"usage/{name}"] for row in rows) / WINDOW
        if share < DEAD_SHARE / len(branches):
            warnings[name] = (
                f"branch {name} is dead: in steps {rows[0]['step']} to {rows[-1]['step']} {share:.1%} of the captions "
                f"chose it, a fair share being {1 / len(branches):.1%}; use fewer branches, or free_matching_balanced"
            )
    return warnings
