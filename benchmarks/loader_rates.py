"""Our loader against open_clip's (webdataset) on the same tars, in samples per CPU-second of one process and thread.

    python -m benchmarks.loader_rates --folder FOLDER       with webdataset 0.2.86 on PYTHONPATH

That is the newest webdataset that open_clip 3.3.0 asks for; with the one of our locks its pipeline ends in a KeyError.
Tars hold JPEGs and a caption beside each (`benchmarks.made_up`). open_clip's side is `open_clip_train.data`'s own
pipeline for training: read, shuffle, decode, crop and normalise, tokens. Ours makes batches as the trainer gets them:
samples and tokens from the index, pictures by offset, uint8 on a canvas; the crop and the rest are the device's work
and are measured apart. Without decode both give the encoded pictures. All ways take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import torch
import webdataset as wds
from open_clip.transform import AugmentationCfg, image_transform
from open_clip_train import data as open_clip_data
from PIL import Image
from torch import Tensor

from benchmarks.made_up import Data, make, open_clip_arguments
from pipeline import pictures
from pipeline.config import build
from training.augment import crop_and_normalise
from training.batches import BatchMaker
from training.config import RunConfig
from training.slots import DEFAULT_SLOTS

BATCH, SIDE, CANVAS = 64, 224, 256
Way = Callable[[], int]  # makes samples; returns how many
EMPTY = torch.zeros(3, 8, 8, dtype=torch.uint8)


class Undecoded(BatchMaker):
    """Batches of pictures that nobody looked into."""

    def _decode(self, _: bytes) -> tuple[Tensor, int, int]:
        return EMPTY, SIDE, SIDE


class Unread(Undecoded):
    """The same without reading the pictures: what the index gives."""

    def _read(self, *_: Any) -> bytes:
        return b""


def webdataset(data: Data, decode: bool, tokens: bool) -> Iterator[Any]:
    """open_clip's training pipeline over all tars once, whole or without some of its steps."""
    tokenizer = open_clip.SimpleTokenizer()
    args = open_clip_arguments(data, BATCH)
    if not decode:
        return iter(wds.DataPipeline(*_stages(args, tokenizer if tokens else None)))
    preprocess = image_transform(SIDE, is_train=True, aug_cfg=AugmentationCfg())
    return iter(open_clip_data.get_wds_dataset(args, preprocess, True, tokenizer=tokenizer).dataloader)


def _stages(args: SimpleNamespace, tokenizer: Any) -> list[Any]:
    """`get_wds_dataset`'s stages without those that decode pictures, and with or without tokens."""
    return [
        wds.SimpleShardList(args.train_data.split("::")),
        open_clip_data.detshuffle2(
            bufsize=open_clip_data._SHARD_SHUFFLE_SIZE, initial=open_clip_data._SHARD_SHUFFLE_INITIAL, seed=0, epoch=0
        ),
        wds.split_by_node,
        wds.split_by_worker,
        open_clip_data.tarfile_to_samples_nothrow,
        wds.shuffle(bufsize=open_clip_data._SAMPLE_SHUFFLE_SIZE, initial=open_clip_data._SAMPLE_SHUFFLE_INITIAL),
        wds.select(open_clip_data.filter_no_caption_or_no_image),
        wds.rename(image="jpg;png;jpeg;webp", text="txt"),
        wds.map_dict(text=(lambda text: tokenizer(text.decode())[0]) if tokenizer else bytes.decode),
        wds.to_tuple("image", "text"),
        wds.batched(BATCH, partial=True),
    ]


def theirs(data: Data, decode: bool, tokens: bool) -> int:
    return sum(len(texts) for _, texts in webdataset(data, decode, tokens))


def ours(maker: type[BatchMaker], data: Data, slots: int, canvas: int) -> Way:
    """Batches of an epoch. What is made once a training is made before."""
    config = build(RunConfig, {"slots": list(DEFAULT_SLOTS[:slots]), "losses": {"served": 1.0}, "global_batch": BATCH})
    batches = maker(config, data.bundles(config), data.reader, canvas=canvas, context_length=77)

    def make_all() -> int:
        return sum(len(batches[step].image_BCSS) for step in range(batches.order.steps_per_epoch))

    return make_all


def ways(data: Data) -> dict[str, Way]:
    """All that is compared, by name."""
    return {
        "webdataset, tars and shuffle": partial(theirs, data, decode=False, tokens=False),
        "webdataset, without decode": partial(theirs, data, decode=False, tokens=True),
        "webdataset, whole": partial(theirs, data, decode=True, tokens=True),
        "ours, index alone, 1 caption": ours(Unread, data, 1, 8),
        "ours, without decode, 1 caption": ours(Undecoded, data, 1, 8),
        "ours, without decode, 8 captions": ours(Undecoded, data, 8, 8),
        "ours, whole, 1 caption": ours(BatchMaker, data, 1, CANVAS),
        "ours, whole, 8 captions": ours(BatchMaker, data, 8, CANVAS),
    }


def parts(data: Data) -> dict[str, Way]:
    """What a picture costs, part by part, on both sides."""
    rows = data.table.slice(0, BATCH).to_pylist()
    encoded = [data.reader.read(row["shard"], row["offset"], row["size"]) for row in rows]
    preprocess = image_transform(SIDE, is_train=True, aug_cfg=AugmentationCfg())
    crop, rest = preprocess.transforms[0], preprocess.transforms[1:]
    whole = [_opened(one) for one in encoded]
    scaled = [pictures.decode(one, lambda *_: (CANVAS, CANVAS))[0] for one in encoded]
    size = (CANVAS, CANVAS)
    canvases = [picture.resize(size, Image.Resampling.BICUBIC) for picture in scaled]
    small = [crop(picture) for picture in whole]
    image_BCSS = torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1) for one in canvases])
    box_B4 = torch.tensor([[0.02, 0.02, 0.95, 0.95]]).repeat(len(encoded), 1)
    recipe = RunConfig()

    def each(work: Callable[[Any], object], on: list[Any]) -> Way:
        return lambda: len([work(one) for one in on])

    def on_device() -> int:
        crop_and_normalise(image_BCSS, box_B4, SIDE, recipe.image_mean, recipe.image_std)
        return len(image_BCSS)

    def normalised(picture: Any) -> Any:
        for transform in rest:
            picture = transform(picture)
        return picture

    return {
        "decoder: Pillow, whole": each(_opened, encoded),
        "decoder: ours, scaled": each(lambda one: pictures.decode(one, lambda *_: size), encoded),
        f"resize: crop of the whole picture to {SIDE}": each(crop, whole),
        f"resize: ours, to the canvas of {CANVAS}": each(_resized, scaled),
        "pixels: float, normalised": each(normalised, small),
        "pixels: ours, uint8": each(_bytes, canvases),
        "pixels: ours, crop and normalise, the device's work on this CPU": on_device,
        "check: hash of the picture's bytes": each(_checked, encoded),
    }


def _opened(data: bytes) -> Image.Image:
    """As webdataset's `pilrgb` decodes."""
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        return opened.convert("RGB")


def _resized(picture: Image.Image) -> Image.Image:
    return picture.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)


def _bytes(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _checked(data: bytes) -> str:
    from pipeline.identity import image_id

    return image_id(data)


def rates(compared: dict[str, Way], pairs: int, least: float = 0.0) -> dict[str, float]:
    """Samples per CPU-second of each, the median of so many turns; each turn takes `least` seconds at least."""
    found: dict[str, list[float]] = {name: [] for name in compared}
    for way in compared.values():
        way()  # what is remembered of words, and the system's cache of files
    for _ in range(pairs):
        for name, way in compared.items():
            began, made = time.process_time(), way()
            while time.process_time() - began < least:
                made += way()
            found[name].append(made / (time.process_time() - began))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[""], help="words that a way's name begins with")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    data = make(options.folder, options.images, options.side, shards=4)
    print(f"{options.images} pictures of {options.side} pixels, {data.kilobytes:.0f} kB each\n")
    chosen = {name: way for name, way in ways(data).items() if name.startswith(tuple(options.only))}
    print("| way | samples per CPU-second |\n| --- | ---: |")
    for name, rate in rates(chosen, options.pairs).items():
        print(f"| {name} | {rate:,.0f} |", flush=True)
    print("\n| part | pictures per CPU-second |\n| --- | ---: |")
    for name, rate in rates(parts(data), options.pairs, least=0.2).items():
        print(f"| {name} | {rate:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
