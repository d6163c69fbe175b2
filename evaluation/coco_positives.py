"""More right answers for COCO: CxC and ECCV Caption, as the package `eccv_caption` holds them, where it is there.

In COCO a caption is true for the image alone that it was written for. People were asked about more pairs for
CrissCrossed Captions (CxC; Parekh et al., 2021) and ECCV Caption (Chun et al., 2022). Both are of Karpathy's 5,000
test images and five captions of each, and go by COCO's ids. Light on purpose: whether the package is there is part of
a benchmark's identity.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from pipeline import identity

PACKAGE = "eccv_caption"
KARPATHY_TEST = "18a173e42d695050f9700423634f3cae"  # digest of the ids of the 5,000 images, in ascending order
Pairs = Mapping[int, Sequence[int]]  # the right answers of each query, by id


@dataclass(frozen=True)
class Positives:
    """What one of the two says. The directions were asked apart, so they may differ in which pairs they know."""

    name: str
    text_to_image: Pairs
    image_to_text: Pairs


@dataclass(frozen=True)
class MorePositives:
    """All of it, with the captions that are candidates; every image is."""

    captions: tuple[int, ...]
    kinds: tuple[Positives, ...]


def is_karpathys_test(coco_ids: Sequence[int]) -> bool:
    """Whether these are the images that the positives are of, in whatever order."""
    return bool(coco_ids) and identity.digest(sorted(coco_ids)) == KARPATHY_TEST


def installed() -> bool:
    """Whether the package is there."""
    return find_spec(PACKAGE) is not None


def identity_with(digest: str, coco_ids: Sequence[int]) -> str:
    """The identity of a benchmark: with the package more is asked of these images, so it is another one."""
    if not (is_karpathys_test(coco_ids) and installed()):
        return digest
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:  # a folder on the path, not a distribution
        version = ""
    return identity.digest([digest, PACKAGE, version])


def read() -> MorePositives:
    """The positives of the package."""
    found = _metrics()
    kinds = {"cxc": found.cxc_gts, "eccv": found.eccv_gts}
    return MorePositives(
        tuple(found.coco_gts["t2i"]),
        tuple(Positives(name, pairs["t2i"], pairs["i2t"]) for name, pairs in kinds.items()),
    )


def _metrics() -> Any:
    with warnings.catch_warnings():  # that its progress bar or its faster JSON reader are not there
        warnings.simplefilter("ignore")
        from eccv_caption import Metrics

        return Metrics()
