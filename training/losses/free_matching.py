"""Free matching: captions choose among the branches of their image (PAPER 1.3 b).

With at least as many slots as branches the first H slots keep a branch each, and those beyond choose; with more
branches than slots every caption chooses. A caption's choice holds in every image: it is compared with the branch it
chose in its own image, in all others too.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from training.losses import matching
from training.losses.contrast import by_slot, image_to_text, text_to_image
from training.losses.features import Features
from training.losses.term import TermLoss, over_captions

Matching = Callable[[Features], Tensor]
MATCHINGS: dict[str, Matching] = {
    "free_matching": matching.hard,
    "free_matching_soft": matching.soft,
    "free_matching_balanced": matching.balanced,
}


def by_choice(features: Features, match: Matching) -> TermLoss:
    """Every caption against the branch it chose, or its mixture of branches, of its own image and of all others."""
    choosing = matching.choosing_slots(features)
    own_branch = features.of_slots(slice(choosing.start))
    losses = []
    if own_branch.slots:
        losses.append(by_slot(own_branch, features.image_BHD, features.image_NHD))
    if own_branch.slots < features.slots:
        losses.append(_of_choosing(features.of_slots(choosing), match))
    return over_captions(features, torch.cat(losses, dim=1))


def _of_choosing(features: Features, match: Matching) -> Tensor:
    """Loss of each caption, (B, M), where all slots choose.

    A caption's logit with any image is its weighted mean over the image's branches. So it is one product of vectors of
    width H · D: the image's branches in a row, and the caption repeated, times its weights.
    """
    weight_BMH = match(features)
    image_BMD = torch.einsum("bmh,bhd->bmd", weight_BMH, features.image_BHD)
    query_BME = (weight_BMH[:, :, :, None] * features.text_BMD[:, :, None]).flatten(2)
    image_NME = features.image_NHD.flatten(1)[:, None].expand(-1, features.slots, -1)
    return (image_to_text(features, image_BMD) + text_to_image(features, query_BME, image_NME)) / 2
