"""Pictures with their masks as a model sees them, patch by patch, in a stream: nothing of it is kept.

Patches of a benchmark would be hundreds of times its vectors, so they are made, asked and dropped. Memory holds the
maps of one batch of pictures, and the next batch decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from evaluation import masks, patch_maps
from evaluation.config import DenseMap
from evaluation.regions import Sliding
from evaluation.segmentation import Scores
from evaluation.task import Subject
from evaluation.windows import ALL, Box, Layout
from pipeline import pictures
from pipeline.errors import InputError
from pipeline.progress import Progress

PICTURES, WINDOWS = 16, 16  # in a batch, and that are encoded together


@dataclass(frozen=True)
class Loaded:
    """A picture, the numbers of its mask (rows, columns), and its windows as the model takes them (W, 3, S, S)."""

    index: int
    picture: Image.Image
    number_YX: np.ndarray
    layout: Layout
    window_WCSS: Tensor


@dataclass(frozen=True)
class Seen:
    """A loaded picture with its maps by kind, (G, W, rows, columns, D), where G are branches and W windows."""

    loaded: Loaded
    maps: Mapping[DenseMap, Tensor]
    branches: Sequence[str]

    def scores(self, kind: DenseMap, readout: str, *, normalised: bool, box: Box = ALL) -> Scores:
        """What gives the scores of texts at each pixel of a box; `normalised` makes them cosines."""
        map_WRCD = patch_maps.read_out(self.maps[kind], readout, self.branches)
        if normalised or kind != "attended":
            map_WRCD = F.normalize(map_WRCD, dim=-1)
        return lambda text_TD: self.loaded.layout.scores(map_WRCD, text_TD, self.loaded.number_YX.shape, box)


def stream(subject: Subject, side: int, kinds: Sequence[DenseMap], sliding: Sliding | None) -> Iterator[Seen]:
    """All pictures of a benchmark, in order. Raises `InputError` for a picture or mask that cannot be used."""
    count, pool_size = len(subject.benchmark.files), subject.config.workers
    at_once = max(1, min(PICTURES, subject.config.image_batch) // (1 if sliding is None else 4))
    batches = [range(begin, min(begin + at_once, count)) for begin in range(0, count, at_once)]
    progress = Progress(f"{subject.encoder.run}: patches of {subject.benchmark.name}", count, "images")
    with ThreadPoolExecutor(pool_size) as pool:
        waiting = [pool.submit(load, subject, index, side, sliding) for index in batches[0]]
        for following in [*batches[1:], range(0)]:
            ready = [future.result() for future in waiting]
            waiting = [pool.submit(load, subject, index, side, sliding) for index in following]
            yield from _seen(subject, ready, kinds)
            progress.update(len(ready))
    progress.close()


def load(subject: Subject, index: int, side: int, sliding: Sliding | None) -> Loaded:
    """A picture with its mask."""
    benchmark = subject.benchmark
    place, mask = benchmark.image(index), benchmark.masks[index]
    try:
        picture = pictures.decode(place.read())[0]
    except Exception as error:  # decoders raise anything on damaged input
        raise InputError(f"the benchmark picture {place} cannot be decoded ({error}); replace it") from error
    number_YX = masks.read(mask)
    columns, rows = picture.size
    if number_YX.shape != (rows, columns):
        found = " × ".join(map(str, number_YX.shape[::-1]))
        raise InputError(f"the mask {mask} has {found} pixels, but its picture has {columns} × {rows}")
    layout = Layout.of((rows, columns), side, sliding)
    return Loaded(index, picture, number_YX, layout, layout.cut(picture, subject.encoder.preprocess))


def _seen(subject: Subject, batch: Sequence[Loaded], kinds: Sequence[DenseMap]) -> Iterator[Seen]:
    model, device = subject.encoder.model, subject.features.branch_NHD.device
    window_XCSS = torch.cat([loaded.window_WCSS for loaded in batch])
    found = {
        kind: torch.cat([patch_maps.maps(model, part.to(device), kind) for part in window_XCSS.split(WINDOWS)])
        for kind in kinds
    }
    each = [len(loaded.window_WCSS) for loaded in batch]
    by_picture = {kind: map_XGRCD.transpose(0, 1).split(each, dim=1) for kind, map_XGRCD in found.items()}
    for number, loaded in enumerate(batch):
        yield Seen(loaded, {kind: parts[number] for kind, parts in by_picture.items()}, subject.encoder.branches)
