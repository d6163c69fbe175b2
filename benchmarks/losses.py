"""Time and kept memory of the contrastive losses, against the released code's way and against open_clip's.

M2M by slot at H = M = 5 against `released_m2m`, and at H = M = 1 against ClipLoss, at width 512 in float32. Each is
measured with logits kept for backward (the default at these sizes) and with tiles made again in backward.

Time is forward and backward, of calls that take turns, the median of each. Kept bytes are those of the storages that
autograd saves in forward, without the inputs'; `until backward` leaves out what is freed when forward returns.

    python -m benchmarks.losses
"""

import argparse
import gc
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.released_m2m import released_m2m
from training.losses import gather, tiles, weighted_sum

WIDTH = 512
MIB = 2**20
WAYS = {"logits kept": tiles.KEPT_LOGITS, "tiles": 0}
Inputs = tuple[Tensor, Tensor, Tensor]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def ours(image_BHD: Tensor, text_BMD: Tensor, scale: Tensor) -> Tensor:
    """The M2M term as the trainer calls it."""
    everything_BM = torch.ones(text_BMD.shape[:2], dtype=torch.bool, device=text_BMD.device)
    return weighted_sum(gather(image_BHD, text_BMD, everything_BM, scale), {"m2m": 1.0}).total


def clip_loss(image_BHD: Tensor, text_BMD: Tensor, scale: Tensor) -> Tensor:
    """open_clip's loss of one vector and one caption."""
    loss: Tensor = open_clip.ClipLoss()(image_BHD[:, 0], text_BMD[:, 0], scale)
    return loss


def make_inputs(batch: int, slots: int, device: str) -> Inputs:
    """Unit vectors and CLIP's first scale."""
    torch.manual_seed(batch)
    image, text = (F.normalize(torch.randn(batch, slots, WIDTH, device=device), dim=-1) for _ in range(2))
    return image.requires_grad_(), text.requires_grad_(), torch.tensor(1 / 0.07, device=device, requires_grad=True)


def timed(losses: list[Callable[[], Tensor]], repeat: int, device: str) -> list[float]:
    """Median milliseconds of forward and backward of each, the calls taking turns after one that does not count."""
    taken: list[list[float]] = [[] for _ in losses]
    for turn in range(repeat + 1):
        for loss, milliseconds in zip(losses, taken, strict=True):
            began = _now(device)
            loss().backward()
            if turn:
                milliseconds.append(1000 * (_now(device) - began))
    return [statistics.median(milliseconds) for milliseconds in taken]


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class _Saved:
    """What autograd holds; as long as this lives, so does the graph that asked for it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def kept(loss: Loss, inputs: Inputs) -> tuple[float, float]:
    """MiB of all that autograd saves in forward, and of what of it is there until backward."""
    own = {leaf.untyped_storage().data_ptr() for leaf in inputs}
    saved: list[weakref.ref[_Saved]] = []
    storages: dict[int, int] = {}
    everything: list[Tensor] = []  # so that no storage's address is used again

    def pack(tensor: Tensor) -> _Saved:
        holder = _Saved(tensor)
        saved.append(weakref.ref(holder))
        everything.append(tensor.detach())
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return holder

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda holder: holder.tensor):
        total = loss(*inputs)
    gc.collect()
    alive = {holder.tensor.untyped_storage().data_ptr() for ref in saved if (holder := ref())}
    assert total.requires_grad
    of_alive = sum(size for address, size in storages.items() if address in alive)
    return sum(storages.values()) / MIB, of_alive / MIB


def measure(name: str, reference: Loss, batch: int, slots: int, repeat: int, device: str) -> list[dict[str, Any]]:
    """Figures of the reference, and of both ways of ours. Raises AssertionError where their values differ."""
    inputs = make_inputs(batch, slots, device)

    def way(limit: int) -> Loss:
        def loss(*leaves: Tensor) -> Tensor:
            tiles.KEPT_LOGITS = limit
            return ours(*leaves)

        return loss

    losses = {name: reference, **{f"ours, {way_name}": way(limit) for way_name, limit in WAYS.items()}}
    try:
        values = [loss(*inputs).item() for loss in losses.values()]
        found = dict(zip(losses, values, strict=True))
        assert max(values) - min(values) <= 1e-4 * values[0], f"the losses differ: {found}"
        times = timed([lambda loss=loss: loss(*inputs) for loss in losses.values()], repeat, device)
        memory = [kept(loss, inputs) for loss in losses.values()]
    finally:
        tiles.KEPT_LOGITS = WAYS["logits kept"]
    return [
        {
            "loss": loss_name,
            "ms": milliseconds,
            "times as fast": times[0] / milliseconds,
            "kept MiB": saved,
            "kept share": saved / memory[0][0],
            "until backward MiB": until,
            "until backward share": until / memory[0][1],
        }
        for loss_name, milliseconds, (saved, until) in zip(losses, times, memory, strict=True)
    ]


REFERENCES = ((5, "released", released_m2m), (1, "ClipLoss", clip_loss))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 1024, 2048])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| H = M | B | loss | fwd + bwd ms | times as fast | kept MiB | share | until backward MiB | share |")
    print("| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for slots, name, reference in REFERENCES:
        for batch in options.batches:
            for row in measure(name, reference, batch, slots, options.repeat, options.device):
                print(
                    f"| {slots} | {batch} | {row['loss']} | {row['ms']:.1f} | {row['times as fast']:.2f} | "
                    f"{row['kept MiB']:.1f} | {row['kept share']:.3f} | {row['until backward MiB']:.1f} | "
                    f"{row['until backward share']:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
