"""What branches cost: forward and backward of the image tower with H=5 against H=1, by kind, on this machine.

    python -m benchmarks.image_tower --batch 2 --rounds 6

All towers are made from the same weights and measured in turns, round after round, on one thread, in seconds of the
processor, which others on the machine disturb least. A figure is the least of the rounds. The references are
open_clip's own tower (H=1) and the released MLP mechanism (`benchmarks/released_mlp.py`); its outputs are compared
with ours before anything is timed.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.released_mlp import ReleasedMLPs
from training.branches import BranchMLPs, branched
from training.config import BranchOptions
from training.towers import TOWER_KEYS, resolve_architecture

H = 5
OPEN_CLIP, PLAIN, RELEASED = "open_clip, H=1", "H=1", "mlp, released mechanism"
KINDS = {
    "cls, none": BranchOptions(isolation="none"),
    "cls, tokens": BranchOptions(isolation="tokens"),
    "cls, full": BranchOptions(isolation="full"),
    "cls, paper": BranchOptions(isolation="paper"),
    "mlp, 1 block": BranchOptions(kind="mlp", projection="branch", blocks=1),
    "mlp, 3 blocks": BranchOptions(kind="mlp", blocks=3),
    "query, 3 blocks": BranchOptions(kind="query", blocks=3),
    "query, 1 block": BranchOptions(kind="query", blocks=1),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", nargs="*", default=list(KINDS), help="kinds, as the table names them")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    towers = make_towers(options.model, options.only)
    seconds = measure(towers, options.batch, options.rounds, torch.device("cpu"))
    side = towers[OPEN_CLIP].image_size[0]
    report(seconds, options.batch, {name: flops(tower, side) for name, tower in towers.items()})


def measure(
    towers: dict[str, nn.Module], batch: int, rounds: int, device: torch.device
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each round, forward alone and with backward: of the processor, or on a GPU in bf16 and of the clock.

    The released mechanism's outputs are compared with ours first, in float32. Raises AssertionError where they differ.
    """
    side = towers[OPEN_CLIP].image_size[0]
    image_BCSS = torch.randn(batch, 3, side, side, device=device)
    for tower in towers.values():
        tower.to(device)
    if RELEASED in towers:
        apart = largest_difference(towers["mlp, 3 blocks"], towers[RELEASED], image_BCSS)
        print(f"largest difference of our mlp from the released mechanism: {apart:.1e}")
        assert apart < (1e-5 if device.type == "cpu" else 1e-2), f"outputs differ by {apart}"
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in towers}
    for turn in range(rounds + 1):  # the first round warms up
        for name, tower in towers.items():
            measured = step(tower, image_BCSS)
            if turn:
                seconds[name].append(measured)
    return seconds


def make_towers(model: str | dict[str, Any], kinds: Sequence[str]) -> dict[str, nn.Module]:
    """Towers by name, all from the same weights. `model` is a name of open_clip's or its towers spelled out."""
    torch.manual_seed(0)
    config = resolve_architecture(model)
    plain = open_clip.CLIP(**{key: config[key] for key in TOWER_KEYS if key in config}).visual
    towers = {OPEN_CLIP: plain, PLAIN: branched(copy.deepcopy(plain), 1, BranchOptions())}
    towers |= {name: branched(copy.deepcopy(plain), H, KINDS[name]) for name in kinds}
    mlps = towers.get("mlp, 3 blocks")
    if isinstance(mlps, BranchMLPs):
        towers[RELEASED] = ReleasedMLPs(copy.deepcopy(mlps))
    return towers


@torch.no_grad()
def largest_difference(tower: nn.Module, reference: nn.Module, image_BCSS: Tensor) -> float:
    return float((tower(image_BCSS) - reference(image_BCSS)).abs().max())


def step(tower: nn.Module, image_BCSS: Tensor) -> tuple[float, float]:
    """Seconds of a forward pass without gradients, and of a forward and backward pass."""
    on_gpu = image_BCSS.is_cuda

    def train() -> None:
        tower.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
            loss = tower(image_BCSS).square().mean()
        loss.backward()

    def look() -> None:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=on_gpu):
            tower(image_BCSS)

    return _timed(look, on_gpu), _timed(train, on_gpu)


def _timed(work: Callable[[], object], on_gpu: bool) -> float:
    began = _now(on_gpu)
    work()
    return _now(on_gpu) - began


def _now(on_gpu: bool) -> float:
    """Of the processor, which others on the machine disturb least; of the clock once a GPU has done its work."""
    if not on_gpu:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def flops(tower: nn.Module, side: int) -> float:
    """Floating-point operations of an image's forward and backward pass, counted and not timed."""
    weightless = copy.deepcopy(tower).to("meta")
    with FlopCounterMode(display=False) as counter:
        weightless(torch.empty(1, 3, side, side, device="meta")).square().mean().backward()
    return float(counter.get_total_flops())


def report(seconds: dict[str, list[tuple[float, float]]], batch: int, operations: dict[str, float]) -> None:
    """A row per tower: what an image costs, and how it compares with H=1 and with the released mechanism."""
    least = {name: [min(column) for column in zip(*rows, strict=True)] for name, rows in seconds.items()}
    least = {name: [*both, operations[name]] for name, both in least.items()}
    base = least[PLAIN]
    print("| tower | forward, ms | over H=1 | forward + backward, ms | over H=1 | the same, GFLOP | over H=1 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, (forward, both, count) in least.items():
        times = (1000 * forward / batch, forward / base[0], 1000 * both / batch, both / base[1])
        cells = (*times, count / 1e9, count / base[2])
        print("| {} | {:.0f} | {:.3f} | {:.0f} | {:.3f} | {:.1f} | {:.3f} |".format(name, *cells))
    if RELEASED in least:
        ours, theirs, plain = least["mlp, 3 blocks"], least[RELEASED], least[OPEN_CLIP]
        for index, what in enumerate(("forward", "forward + backward", "forward + backward, GFLOP")):
            own = (ours[index] - base[index]) / (theirs[index] - plain[index])
            same = (ours[index] - plain[index]) / (theirs[index] - plain[index])
            print(
                f"mlp, {what}: {own:.2f} of the released overhead, each over its own H=1; {same:.2f} over open_clip's"
            )


if __name__ == "__main__":
    main()
