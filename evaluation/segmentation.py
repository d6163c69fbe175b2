"""Zero-shot segmentation and the pointing game: figures of a picture's scores, and estimates over pictures.

Mean IoU is what everybody reports: over all pixels of all pictures together, for each class what is both in truth and
prediction by what is in either, and the mean over classes that occur in either. So it is no mean over pictures; a
resample of pictures adds up anew. In the pointing game (Zhang et al. 2016) a text of something in the picture hits if
the pixel of highest score lies inside its mask; pixels of equal score share the hit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation import intervals
from evaluation.masks import OUTSIDE
from evaluation.regions import UNLABELLED, Regions
from evaluation.windows import Box

AT_ONCE = 2**19  # scores that are in memory together: few enough to stay in a processor's cache
Scores = Callable[[Tensor], Tensor]  # vectors of texts (T, D) to their scores at each pixel (T, rows, columns)


@dataclass(frozen=True)
class MeanIoU:
    """Mean over classes of intersection over union, of pixels by image and class, (N, C) each."""

    both_NC: np.ndarray
    either_NC: np.ndarray

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.both_NC)

    @property
    def by_class(self) -> np.ndarray:
        """Intersection over union of each class, (C,); nan where it is nowhere, in truth or prediction."""
        return _ratio(self.both_NC.sum(axis=0, dtype=np.float64), self.either_NC.sum(axis=0, dtype=np.float64))

    @property
    def value(self) -> float:
        """The mean."""
        return float(np.nanmean(self.by_class))

    def replicates(self, *, samples: int, seed: int) -> np.ndarray:
        """The mean on each resample of images, (samples,)."""
        both_SC, either_SC = (
            intervals.replicates(pixels_NC, samples=samples, seed=seed) for pixels_NC in (self.both_NC, self.either_NC)
        )
        return np.asarray(np.nanmean(_ratio(both_SC, either_SC), axis=1))


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over images: of pixels, or of texts."""

    part_N: np.ndarray
    whole_N: np.ndarray

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.part_N)

    @property
    def value(self) -> float:
        """The ratio."""
        return float(self.part_N.sum(dtype=np.float64) / self.whole_N.sum(dtype=np.float64))

    def replicates(self, *, samples: int, seed: int) -> np.ndarray:
        """The ratio on each resample of images, (samples,)."""
        part_S, whole_S = (
            intervals.replicates(sum_N, samples=samples, seed=seed) for sum_N in (self.part_N, self.whole_N)
        )
        return _ratio(part_S, whole_S)


def predict(scores: Scores, name_TD: Tensor, place_T: np.ndarray, regions: Regions, pixels: int) -> np.ndarray:
    """The label of each pixel, (rows, columns): that of the best name, or the background where no name is likely.

    Names are scored some at a time: as many as fit with so many pixels.
    """
    step = min(max(1, AT_ONCE // pixels), 2**15 - 1)  # places within a step are numbers of 16 bits
    best_YX, which_YX, total_YX = None, None, None
    for begin in range(0, len(name_TD), step):
        score_TYX = scores(name_TD[begin : begin + step])
        top_YX = score_TYX.amax(dim=0)
        order_T11 = torch.arange(len(score_TYX), dtype=torch.int16, device=top_YX.device)[:, None, None]
        place_YX = ((score_TYX == top_YX) * order_T11).amax(dim=0).long()  # `max` finds it three times as slowly
        sum_YX = (regions.scale * score_TYX).logsumexp(dim=0) if regions.threshold is not None else None
        if best_YX is None or which_YX is None:
            best_YX, which_YX, total_YX = top_YX, place_YX, sum_YX
            continue
        which_YX = torch.where(top_YX > best_YX, place_YX + begin, which_YX)
        best_YX = torch.maximum(top_YX, best_YX)
        total_YX = None if sum_YX is None or total_YX is None else torch.logaddexp(sum_YX, total_YX)
    assert best_YX is not None
    assert which_YX is not None
    label_YX = torch.from_numpy(place_T).to(which_YX.device)[which_YX]
    if total_YX is not None and regions.threshold is not None:
        label_YX[(regions.scale * best_YX - total_YX).exp() < regions.threshold] = len(regions.classes)
    return label_YX.cpu().numpy()


def counted(truth_YX: np.ndarray) -> Box:
    """The smallest box with all pixels that count; what is left out of the figures need not be predicted."""
    counts_YX = truth_YX != OUTSIDE
    ends = [np.flatnonzero(counts_YX.any(axis=axis))[[0, -1]] if counts_YX.any() else (0, 0) for axis in (1, 0)]
    return slice(ends[0][0], ends[0][1] + 1), slice(ends[1][0], ends[1][1] + 1)


def overlap(truth_YX: np.ndarray, label_YX: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of each label that are right, and pixels of it in truth or prediction, (C,) each."""
    counted = truth_YX != OUTSIDE
    truth, said = truth_YX[counted], label_YX[counted]
    both_C = np.bincount(truth[truth == said], minlength=labels)
    either_C = np.bincount(truth, minlength=labels) + np.bincount(said, minlength=labels) - both_C
    return both_C, either_C


def random_iou(truth_NC: np.ndarray) -> float:
    """The mean IoU of labels drawn at random, pixel by pixel; from the pixels of each label in truth, by image."""
    truth_C = truth_NC.sum(axis=0, dtype=np.float64)
    said = truth_C.sum() / len(truth_C)
    both_C = truth_C / len(truth_C)
    return float(np.mean(both_C / (truth_C + said - both_C)))


def others(targets: np.ndarray, classes: int) -> np.ndarray:
    """For each class in a picture another one, the next that is not in it: what the pointing game is checked with.

    A map that lights up things whatever is asked hits by their texts as well. Where all are in it, just the next.
    """
    absent = np.setdiff1d(np.arange(classes), targets)
    if not len(absent):
        return (targets + 1) % classes
    return absent[np.searchsorted(absent, targets) % len(absent)]


def point(score_YX: Tensor, number_YX: np.ndarray, is_target_YX: np.ndarray) -> float:
    """Whether the best of all labelled pixels is of the target; the share of those that tie."""
    labelled_YX = torch.from_numpy(number_YX != UNLABELLED).to(score_YX.device)
    score_YX = score_YX.masked_fill(~labelled_YX, -torch.inf)
    best_YX = (score_YX == score_YX.max()).cpu().numpy()
    return float(is_target_YX[best_YX].mean())


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
