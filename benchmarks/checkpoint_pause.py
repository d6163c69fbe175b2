"""How long training stands still for a checkpoint: the copy, against writing in the loop; a step while it is written.

    python -m benchmarks.checkpoint_pause --folder FOLDER [--model ViT-S-32] [--rounds 5]

The state is a model's with AdamW's moments. The work beside the writing is the forward and backward pass of one image.
"""

import argparse
import io
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from pipeline.config import build
from pipeline.storage import Location
from training.checkpoint import new_model
from training.config import RunConfig
from training.optim import make_optimizer
from training.saving import CheckpointWriter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--model", default="ViT-S-32")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = build(RunConfig, {"model": options.model})
    model = new_model(config).to(device)
    optimizer = make_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state: dict[str, Any] = {"description": {}, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    side = model.visual.image_size[0]

    def step() -> float:
        began = time.perf_counter()
        model.visual(torch.zeros(1, 3, side, side, device=device)).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    in_loop, pauses, writes, alone, beside = [], [], [], [], []
    for number in range(options.rounds):
        began = time.perf_counter()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        Location.of(options.folder / "in-loop.pt").write(buffer.getvalue())
        in_loop.append(time.perf_counter() - began)
        alone += [step() for _ in range(5)]
        with CheckpointWriter(Location.of(options.folder / "checkpoints"), keep=1) as writer:
            began = time.perf_counter()
            writer.write(state, number)
            pauses.append(time.perf_counter() - began)
            while not writer.is_idle:
                beside.append(step())
            writes.append(time.perf_counter() - began)
    size = len(buffer.getvalue()) / 2**20
    print(f"{options.model}, {size:,.0f} MiB, medians of {options.rounds}, s")
    print("| written in the loop | pause with the thread | until the file is there | step alone | step beside |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    figures = (median(values) for values in (in_loop, pauses, writes, alone, beside))
    print("| " + " | ".join(f"{value:.3f}" for value in figures) + " |")


if __name__ == "__main__":
    main()
