"""What micro-batches save and cost: peak memory and time of a step, a process for each size.

    python -m benchmarks.micro_batches --model ViT-B-32 --batch 32 --sizes 32,16,8,4

On a GPU the peak is what torch allocated, on a CPU the largest resident memory; what weights and gradients take is
taken off. There is no optimizer. Captions are random tokens of two lengths.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch

from pipeline.config import build
from training.batches import Batch
from training.checkpoint import new_model
from training.config import RunConfig
from training.gradients import Gradients
from training.ranks import Ranks

LENGTHS = (16, 48)  # tokens of short and long captions; each image has as many of one as of the other


def made_up_batch(images: int, slots: int, side: int, device: torch.device) -> Batch:
    count = images * slots
    texts = []
    for length, texts_of_length in ((LENGTHS[0], count // 2), (LENGTHS[1], count - count // 2)):
        text_TL = torch.randint(1, 49000, (texts_of_length, length))
        text_TL[:, -1] = 49407
        texts.append(text_TL)
    image_BCSS = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
    box_B4 = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(images, 1)
    mask_BM = torch.ones(images, slots, dtype=torch.bool)
    batch = Batch(0, image_BCSS, box_B4, tuple(texts), torch.arange(count), torch.arange(count), mask_BM, ())
    return batch.to(device)


def measure(
    model: str | dict[str, Any], images: int, micro: int, slots: int, device: torch.device
) -> dict[str, float]:
    names = ["alt_text", "detail", "sentence", "phrase", "nouns", "main_object", "background", "style"][:slots]
    recipe = {"model": model, "slots": names, "global_batch": images, "micro_batch": micro}
    config = build(RunConfig, {**recipe, "precision": "bf16" if device.type == "cuda" else "fp32"})
    torch.manual_seed(0)
    network = new_model(config).to(device).train()
    gradients = Gradients(network, config, Ranks(0, 1, device))
    batch = made_up_batch(images, slots, round(network.visual.image_size[0] * 8 / 7), device)
    for parameter in network.parameters():  # as after a first step
        parameter.grad = torch.zeros_like(parameter)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = _held(device)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        gradients(batch)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {"micro": micro, "seconds": min(seconds), "mib": (_held(device) - before) / 2**20}  # MiB of this process


def _held(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--sizes", default="32,16,8,4")
    parser.add_argument("--one", type=int, help="measure this size alone, in this process")
    options = parser.parse_args()
    if options.one:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        print(json.dumps(measure(options.model, options.batch, options.one, options.slots, device)))
        return
    print("| images at once | activations, MiB | step, s |\n| ---: | ---: | ---: |")
    for size in options.sizes.split(","):
        command = [sys.executable, "-m", "benchmarks.micro_batches", "--one", size, "--model", options.model]
        command += ["--batch", str(options.batch), "--slots", str(options.slots)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"| {found['micro']} | {found['mib']:,.0f} | {found['seconds']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
