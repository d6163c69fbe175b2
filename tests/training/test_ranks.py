"""Two gloo ranks give the loss and the gradients of one process that holds the whole batch."""

import subprocess
import sys
from pathlib import Path

import torch

from training.losses import gather, weighted_sum

WEIGHTS = {"m2m": 1.0, "free_matching": 0.5, "served": 0.3}

RANK_PROGRAM = """
import sys, torch, torch.distributed as dist
from training.losses import gather, weighted_sum
rank, store, data, weights = int(sys.argv[1]), sys.argv[2], torch.load(sys.argv[3]), eval(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
rows = slice(4 * rank, 4 * rank + 4)
leaves = [data[name][rows].clone().requires_grad_() for name in ("image", "text")]
scale = data["scale"].clone().requires_grad_()
total = weighted_sum(gather(*leaves, data["mask"][rows], scale), weights).total
grads = torch.autograd.grad(total, [*leaves, scale])
torch.save({"loss": total.detach(), "grads": grads}, f"{sys.argv[3]}.{rank}")
dist.destroy_process_group()
"""


def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = {
        "image": torch.nn.functional.normalize(torch.randn(8, 3, 6, generator=generator, dtype=torch.float64), dim=-1),
        "text": torch.nn.functional.normalize(torch.randn(8, 3, 6, generator=generator, dtype=torch.float64), dim=-1),
        "mask": torch.rand(8, 3, generator=generator) < 0.7,  # unequal numbers of captions on the two ranks
        "scale": torch.tensor(5.0, dtype=torch.float64),
    }
    assert data["mask"][:4].sum() != data["mask"][4:].sum()
    torch.save(data, tmp_path / "data")
    arguments = [str(tmp_path / "store"), str(tmp_path / "data"), repr(WEIGHTS)]
    ranks = [subprocess.Popen([sys.executable, "-c", RANK_PROGRAM, str(rank), *arguments]) for rank in range(2)]
    assert [process.wait(timeout=300) for process in ranks] == [0, 0]

    leaves = [data[name].clone().requires_grad_() for name in ("image", "text", "scale")]
    total = weighted_sum(gather(leaves[0], leaves[1], data["mask"], leaves[2]), WEIGHTS).total
    wanted_image, wanted_text, wanted_scale = torch.autograd.grad(total, leaves)
    found = [torch.load(tmp_path / f"data.{rank}") for rank in range(2)]
    # DDP averages over ranks, so a rank's rows carry twice their share of the global gradient.
    torch.testing.assert_close((found[0]["loss"] + found[1]["loss"]) / 2, total.detach(), rtol=1e-10, atol=0)
    for place, wanted in ((0, wanted_image), (1, wanted_text)):
        rows = torch.cat([rank["grads"][place] for rank in found]) / 2
        torch.testing.assert_close(rows, wanted, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close((found[0]["grads"][2] + found[1]["grads"][2]) / 2, wanted_scale, rtol=1e-8, atol=0)
