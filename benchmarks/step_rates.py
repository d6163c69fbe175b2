"""Our training loop against open_clip's `train_one_epoch` on the same towers, pictures and tars, one thread each.

    python -m benchmarks.step_rates --folder FOLDER plain       with webdataset 0.2.86 on PYTHONPATH (loader_rates.py)
    python -m benchmarks.step_rates --folder FOLDER captions

`plain`: H = M = 1, each side with its own loader on the same tars (made-up JPEGs of 512 pixels), in this process; ours
also with its texts padded to 77 tokens, as open_clip has them.
`captions`: the demo world's scenes with a caption for each of eight slots, all eight a step, against open_clip's loop
given one caption at a time (77 tokens), for as many pairs of image and caption; its batches are in memory. Both sides
take turns; ratios are medians of pairs, in seconds of the clock and of the processor. Operations are counted.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

import open_clip
import pyarrow.parquet as pq
import torch
from torch import Tensor

from benchmarks import steps
from benchmarks.length_groups import padded
from benchmarks.made_up import Data, make, open_clip_arguments
from benchmarks.true_captions import captions
from pipeline import identity, schemas
from pipeline.demo_world.write import write_world
from pipeline.shards import ShardReader
from training import trainer
from training.batches import Batch
from training.config import RunConfig
from training.text import length_groups

CPU = torch.device("cpu")
Pairs = list[tuple[Tensor, Tensor]]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def ours(run: trainer._Run, count: int, shape: Callable[[Batch], Batch] = lambda batch: batch) -> None:
    """So many steps, each with a batch that is made for it, and a look at the figures."""
    for _ in range(count):
        row, measured = trainer._step(run, shape(run.batches[run.step]))
        run.figures.add({**row, "seconds": 1.0, "wait": 0.0}, measured)
    run.figures.look()


def webdataset(data: Data, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """open_clip's own loader, in this process, epoch after epoch."""
    from open_clip.transform import AugmentationCfg, image_transform
    from open_clip_train.data import get_wds_dataset

    args = open_clip_arguments(data, batch)
    preprocess = image_transform(224, is_train=True, aug_cfg=AugmentationCfg())
    whole = get_wds_dataset(args, preprocess, True, tokenizer=open_clip.SimpleTokenizer())
    while True:
        yield from whole.dataloader


def plain(options: argparse.Namespace, folder: Path) -> None:
    data = make(folder, options.images, 512, shards=4)
    config = steps.recipe(options.model, 1, options.batch, "fp32", device="cpu")
    run, loop = steps.started(config, data, str(folder), CPU), steps.OpenClip(config, CPU, 1000)
    made = webdataset(data, options.batch)
    first = next(made)  # its buffer is full now
    operations = loop.flops_of_step(first) / steps.flops_of_step(run, run.batches[0])
    ours(run, 1)
    loop.epoch([first], 1)
    print(f"texts of {steps.mean_tokens(run.batches[0]):.0f} tokens on the mean; open_clip pads them to 77")
    sides = {
        "open_clip": lambda: loop.epoch(islice(made, options.steps), options.steps),
        "ours": lambda: ours(run, options.steps),
        "ours, texts padded to 77": lambda: ours(run, options.steps, padded),
    }
    report(sides, options, options.steps * options.batch, operations)


def with_captions(options: argparse.Namespace, folder: Path) -> None:
    data = scenes(folder, options.images)
    config = steps.recipe(options.model, 8, options.batch, "fp32", device="cpu")
    run, loop = steps.started(config, data, str(folder), CPU), steps.OpenClip(config, CPU, 1000)
    batch = run.batches[0]
    singles: Pairs = steps.single_captions(run, batch)
    operations = len(singles) * loop.flops_of_step(singles[0]) / steps.flops_of_step(run, batch)
    say_lengths(data, config)
    ours(run, 1)
    sides = {
        "open_clip, a caption at a time": lambda: loop.epoch(islice(cycle(singles), len(singles)), len(singles)),
        "ours, eight captions a step": lambda: ours(run, 1),
    }
    report(sides, options, len(singles) * options.batch, operations)


def report(sides: dict[str, Callable[[], object]], options: argparse.Namespace, pairs: int, operations: float) -> None:
    """The table, and how many times as fast as the first side the others are."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(options.pairs):
        order = list(sides.items())
        for name, work in order if turn % 2 == 0 else order[::-1]:
            found[name].append(timed(work))
    print(f"\n{options.model}, {options.batch} images a step, {pairs} pairs of image and caption a turn\n")
    print("| loop | s | CPU-s | pairs a CPU-second |\n| --- | ---: | ---: | ---: |")
    for name, seconds in found.items():
        wall, processor = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"| {name} | {wall:.2f} | {processor:.2f} | {pairs / processor:.2f} |")
    theirs, *others = found.items()
    for name, own in others:
        for place, what in enumerate(("clock", "processor")):
            ratios = sorted(one[place] / other[place] for one, other in zip(theirs[1], own, strict=True))
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{name}: {statistics.median(ratios):.2f} times as fast by the {what} ({each})")
    print(f"operations of forward and backward: {operations:.2f} times as many in open_clip's", flush=True)


def scenes(folder: Path, images: int) -> Data:
    """Scenes of the demo world in a tar, with alt text and the answers to the paper's seven questions."""
    write_world(folder / "scenes", images, 2, seed=0)
    config, rows = RunConfig(), []
    with tarfile.open(folder / "scenes.tar", "w") as tar:
        for number, row in enumerate(pq.read_table(folder / "scenes" / "train_truth.parquet").to_pylist()):
            data = (folder / "scenes" / "train" / row["file"]).read_bytes()
            info = tarfile.TarInfo(row["file"])
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            start = tar.offset - (len(data) + 511) // 512 * 512
            place = {"shard": "scenes", "key": row["file"], "image_id": identity.image_id(data), "size": len(data)}
            rows.append({**place, "offset": start, "captions": captions(row, config, number)})
    table = schemas.table(schemas.BUNDLES, rows)
    reader = ShardReader({"scenes": str(folder / "scenes.tar")})
    return Data((folder / "scenes.tar",), table, reader, sum(row["size"] for row in rows) / len(rows) / 1000)


def say_lengths(data: Data, config: RunConfig) -> None:
    """Tokens of each slot's captions, and what the text tower is given of 77, at this batch and at 1,024 images."""
    piece = data.bundles(config).pieces[0]
    lengths = piece.first_token[1:] - piece.first_token[:-1] + 2
    names = [slot.name for slot in config.slots]
    means = [lengths[piece.slot == number].mean() for number in range(len(names))]
    print("tokens on the mean:", ", ".join(f"{name} {mean:.0f}" for name, mean in zip(names, means, strict=True)))
    for images in (config.global_batch, len(piece)):
        some = lengths[: images * len(names)].tolist()
        given = sum(len(group) * max(some[place] for place in group) for group in length_groups(some))
        print(f"{images} images: the text tower is given {given / (77 * len(some)):.2f} of the tokens of padded texts")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one of the two comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("plain", "captions"))
    parser.add_argument("--folder", type=Path, help="for the made-up data; empty: a temporary one")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="of a turn, for plain")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        (plain if options.what == "plain" else with_captions)(options, folder)


if __name__ == "__main__":
    main()
