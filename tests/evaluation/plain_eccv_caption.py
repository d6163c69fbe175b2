"""What the package `eccv_caption` offers, for the four pictures of the Karpathy fixture, by plain definitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Ranked = dict[int, list[int]]
IMAGES = (1, 2, 4, 5)


class Metrics:
    """Right answers by COCO's ids. ECCV has few queries, other pairs each way, and an answer that is no candidate."""

    def __init__(self) -> None:
        own = {image: [10 * image + turn for turn in range(5)] for image in IMAGES}
        more = {1: [20, 41], 2: [11], 4: [], 5: [42, 43, 44]}
        self.coco_gts = {"i2t": own, "t2i": _swapped(own)}
        wider = {image: [*captions, *more[image]] for image, captions in own.items()}
        self.cxc_gts = {"i2t": wider, "t2i": _swapped(wider)}
        self.eccv_gts = {"i2t": {4: [40, 41, 10, 999], 1: [10, 52]}, "t2i": {52: [5, 1, 2], 10: [1], 21: [2, 4]}}

    def compute_all_metrics(
        self, i2t: Ranked, t2i: Ranked, target_metrics: Sequence[str] = (), verbose: bool = False
    ) -> dict[str, dict[str, float]]:
        """The figures of ranked ids."""
        ranked = {"i2t": i2t, "t2i": t2i}
        found = {
            "eccv_r1": {way: _mean(ranked[way], self.eccv_gts[way], _first) for way in ranked},
            "eccv_rprecision": {way: _mean(ranked[way], self.eccv_gts[way], _r_precision) for way in ranked},
            "eccv_map_at_r": {way: _mean(ranked[way], self.eccv_gts[way], _map_at_r) for way in ranked},
            "cxc_r1": {way: _mean(ranked[way], self.cxc_gts[way], _first) for way in ranked},
        }
        return {name: found[name] for name in target_metrics}


def _swapped(pairs: Ranked) -> Ranked:
    captions = sorted({caption for several in pairs.values() for caption in several})
    return {caption: [image for image in pairs if caption in pairs[image]] for caption in captions}


def _mean(ranked: Ranked, right: Ranked, figure: Callable[[list[bool], int], float]) -> float:
    found = [figure([one in answers for one in ranked[query]], len(answers)) for query, answers in right.items()]
    return float(np.mean(found))


def _first(hits: list[bool], right: int) -> float:
    return float(hits[0])


def _r_precision(hits: list[bool], right: int) -> float:
    return sum(hits[:right]) / right


def _map_at_r(hits: list[bool], right: int) -> float:
    return sum(sum(hits[: place + 1]) / (place + 1) for place in range(min(right, len(hits))) if hits[place]) / right
