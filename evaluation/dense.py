"""Asks a model about the regions of a benchmark's pictures: one pass over the pictures for each way to see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from evaluation import classification, masks, overlays, patch_maps, segmentation
from evaluation.config import DenseMap
from evaluation.masks import OUTSIDE
from evaluation.regions import Regions
from evaluation.seen import Seen, stream
from evaluation.segmentation import MeanIoU, Ratio
from evaluation.task import Subject
from evaluation.windows import ALL, input_side

PICTURED = 5  # pictures drawn by seed, whose labels are shown
Way = tuple[DenseMap, str]  # a map, and a readout of it


@dataclass
class Tally:
    """What a map and readout says of a task, picture by picture: pixels by label, and texts that hit."""

    both: list[np.ndarray] = field(default_factory=list)
    either: list[np.ndarray] = field(default_factory=list)
    right: list[tuple[int, int]] = field(default_factory=list)  # pixels that are right, and all that count
    hits: list[tuple[float, int]] = field(default_factory=list)  # texts that hit, and all that were asked
    stray: list[tuple[float, int]] = field(default_factory=list)  # the same by texts of something else

    @property
    def mean_iou(self) -> MeanIoU:
        return MeanIoU(np.stack(self.both).astype(np.int32), np.stack(self.either).astype(np.int32))

    @property
    def accuracy(self) -> Ratio:
        return _ratio(self.right)

    @property
    def pointing(self) -> Ratio:
        return _ratio(self.hits)

    @property
    def stray_pointing(self) -> Ratio:
        return _ratio(self.stray)


@dataclass
class Shown:
    """A picture for the report: itself, its labels in truth, and as each map and readout says; data URIs."""

    file: str
    picture: str
    truth: str
    said: dict[Way, str]
    labels: set[int]  # that occur in any of these


@dataclass
class Answers:
    """All about a task: tallies by map and readout, pixels of each label in truth, what chance hits, pictures."""

    regions: Regions
    tallies: dict[Way, Tally] = field(default_factory=dict)
    truth: list[np.ndarray] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)

    @property
    def random_iou(self) -> float:
        """What labels at random reach."""
        return segmentation.random_iou(np.stack(self.truth))

    @property
    def random_pixels(self) -> float:
        return 1 / len(self.regions.labels)

    @property
    def random_point(self) -> float:
        """What a pixel at random hits: the mean share of the labelled pixels that are of what is asked."""
        return float(np.mean(self.shares))


def ask(subject: Subject) -> dict[str, Answers]:
    """The answers to every task; none where the model has no maps that are wanted, or crops every picture."""
    kinds = patch_maps.kinds_of(subject.encoder, subject.config.dense_maps)
    side = input_side(subject.encoder.preprocess) if kinds else None
    if side is None:
        return {}
    found = {task: Answers(regions) for task, regions in subject.benchmark.spec.segmentation.items()}
    texts = {task: _texts(regions, subject) for task, regions in subject.benchmark.spec.segmentation.items()}
    rng = np.random.default_rng(subject.config.seed)
    count = len(subject.benchmark.files)
    drawn = set(rng.choice(count, size=min(PICTURED, count), replace=False).tolist())
    for sliding in dict.fromkeys(answers.regions.sliding for answers in found.values()):
        asked = {task: answers for task, answers in found.items() if answers.regions.sliding == sliding}
        with torch.inference_mode():
            for seen in stream(subject, side, kinds, sliding):
                for task, answers in asked.items():
                    _answer(seen, answers, texts[task], subject, is_drawn=seen.loaded.index in drawn)
    return found


def _texts(regions: Regions, subject: Subject) -> Tensor:
    """One vector for each name, (T, D)."""
    prompts = [text for texts in regions.prompts() for text in texts]
    prompt_TPD = subject.features.texts(prompts).unflatten(0, (len(regions.names), len(regions.templates)))
    return classification.class_vectors(prompt_TPD)


def _answer(seen: Seen, answers: Answers, name_TD: Tensor, subject: Subject, *, is_drawn: bool) -> None:
    """Everything about one picture."""
    regions = answers.regions
    place_T = np.array([place for _, place in regions.names])
    truth_YX = masks.places(seen.loaded.number_YX, regions)
    pixels_C = np.bincount(truth_YX[truth_YX != OUTSIDE], minlength=len(regions.labels))
    answers.truth.append(pixels_C)
    targets = np.flatnonzero(pixels_C[: len(regions.classes)]) if regions.pointing else np.array([], int)
    labelled = int((seen.loaded.number_YX != masks.UNLABELLED).sum())
    answers.shares += [pixels_C[target] / labelled for target in targets]
    others = segmentation.others(targets, len(regions.classes))
    shown = _shown(seen, truth_YX, regions, subject) if is_drawn else None
    box = segmentation.counted(truth_YX) if shown is None else ALL
    for way in _ways(seen, subject):
        tally = answers.tallies.setdefault(way, Tally())
        scores = seen.scores(*way, normalised=True, box=box)
        label_YX = segmentation.predict(scores, name_TD, place_T, regions, truth_YX[box].size)
        both_C, either_C = segmentation.overlap(truth_YX[box], label_YX, len(regions.labels))
        tally.both.append(both_C)
        tally.either.append(either_C)
        tally.right.append((int(both_C.sum()), int(pixels_C.sum())))
        for hits, asked in ((tally.hits, targets), (tally.stray, others)):
            pairs = list(zip(targets.tolist(), asked.tolist(), strict=True))
            hits.append((_hits(seen, way, pairs, (name_TD, place_T), truth_YX), len(pairs)))
        if shown is not None:
            shown.said[way] = _over(seen, label_YX, regions)
            shown.labels |= set(np.unique(label_YX).tolist())
    if shown is not None:
        answers.shown.append(shown)


def _hits(
    seen: Seen, way: Way, pairs: Sequence[tuple[int, int]], texts: tuple[Tensor, np.ndarray], truth_YX: np.ndarray
) -> float:
    """How many of these (target, class that is asked) hit; of a class's names the best at each pixel counts."""
    if not pairs:
        return 0.0
    name_TD, place_T = texts
    asked = np.flatnonzero(np.isin(place_T, [place for _, place in pairs]))
    score_TYX = seen.scores(*way, normalised=False)(name_TD[torch.from_numpy(asked).to(name_TD.device)])
    hits = 0.0
    for target, place in pairs:
        best_YX = score_TYX[torch.from_numpy(place_T[asked] == place).to(score_TYX.device)].amax(dim=0)
        hits += segmentation.point(best_YX, seen.loaded.number_YX, truth_YX == target)
    return hits


def _ways(seen: Seen, subject: Subject) -> list[Way]:
    config, branches = subject.config, subject.encoder.branches
    return [
        (kind, readout)
        for kind, map_GX in seen.maps.items()
        for readout in patch_maps.readouts_of(len(map_GX), branches, config.readouts)
    ]


def _shown(seen: Seen, truth_YX: np.ndarray, regions: Regions, subject: Subject) -> Shown:
    file = subject.benchmark.files[seen.loaded.index]
    picture = overlays.data_uri(overlays.small(seen.loaded.picture))
    labels = set(np.unique(truth_YX).tolist()) - {OUTSIDE}
    return Shown(file, picture, _over(seen, truth_YX, regions), {}, labels)


def _over(seen: Seen, label_YX: np.ndarray, regions: Regions) -> str:
    picture = overlays.small(seen.loaded.picture)
    return overlays.over(picture, label_YX, len(regions.labels), background=regions.background is not None)


def _ratio(pairs: Sequence[tuple[float, int]]) -> Ratio:
    part_N, whole_N = (np.array(column) for column in zip(*pairs, strict=True))
    return Ratio(part_N, whole_N)


def legend(regions: Regions, labels: set[int]) -> list[tuple[str, str]]:
    """Names of labels with their colours as CSS writes them."""
    background = regions.background is not None
    return [
        (regions.labels[label], "#" + bytes(overlays.colour(label, len(regions.labels), background=background)).hex())
        for label in sorted(labels)
    ]
