"""Two, three and four gloo ranks give the loss and the gradients of one process that holds the whole batch."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.clip_tokens import END
from tests.training.test_token_head import made_up_head
from training.health import usage
from training.losses import Features, gather, weighted_sum
from training.text_pooling import TextConditionedPooling

SAMPLES, WIDTH = 8, 6
LEAVES = ("image", "text", "patch", "negative")  # what each rank has rows of
SIDES = ("mask", "tokens", "negative_slot")  # what it knows of its samples
# Branches, slots and weights of terms.
CASES = {
    "as many": (3, 3, {"m2m": 1.0, "served": 0.3, "multi_positive": 0.4, "sigmoid": 0.2, "diversity": 2.0}),
    "more slots": (2, 4, {"free_matching": 0.5, "free_matching_soft": 0.7, "free_matching_balanced": 0.3}),
    "more branches": (4, 2, {"free_matching": 0.5, "free_matching_balanced": 0.3, "served": 0.3}),
    "one branch": (1, 3, {"o2o": 1.0, "o2m": 0.5, "sigmoid": 0.2}),
    "second score": (2, 3, {"text_conditioned": 1.0, "served": 0.3}),
    "negatives": (2, 2, {"m2m": 1.0, "served": 0.3, "multi_positive": 0.4, "free_matching": 0.5}),
    "tokens": (3, 3, {"tokens": 1.0, "served": 0.3}),
    "tokens, one branch": (1, 3, {"tokens": 1.0}),
}

RANK_PROGRAM = """
import sys, torch, torch.distributed as dist
from tests.training.test_ranks import LEAVES, SIDES, features_of
from training.batches import share_sizes
from training.health import usage
from training.losses import tiles, weighted_sum
rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
tiles.TILE_LOGITS, tiles.KEPT_LOGITS = 10, 0
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
found = {}
for name, (data, weights) in torch.load(f"{folder}/cases").items():
    shares = share_sizes(len(data["mask"]), ranks)
    rows = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
    leaves = [data[key][rows].clone().requires_grad_() for key in LEAVES]
    leaves += [data["scale"].clone().requires_grad_()]
    features = features_of(leaves, {key: data[key][rows] for key in SIDES}, shares)
    loss = weighted_sum(features, weights)
    grads = torch.autograd.grad(loss.total, leaves, allow_unused=True, materialize_grads=True)
    found[name] = {"loss": loss.total.detach(), "grads": grads, "by_slot": loss.by_slot}
    found[name]["usage"] = usage(features, weights)
torch.save(found, f"{folder}/found.{rank}")
dist.destroy_process_group()
"""


# Under torchrun; as the command does, a user's error is one line. `lost` is the rank that ends in its second run.
STAGE_PROGRAM = """
import json, os, sys
from pathlib import Path
import torch
from pipeline.errors import HolismError
from tests.training.test_stage import stage_run
from training import stage, trainer
torch.set_num_threads(1)
folder, recipe, lost = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
original = trainer._step
def step(run, batch):
    if run.name == "o2o" and os.environ["RANK"] == lost:
        raise HolismError("no disk")
    return original(run, batch)
trainer._step = step
try:
    outcome = stage.run_train(stage_run(folder, recipe, inputs=f"inputs-{os.environ['RANK']}"))
except HolismError as error:
    print(f"rank {os.environ['RANK']}: {error}", flush=True)
    sys.exit(2)
sys.stdout.write(f"trained {' '.join(outcome.counts)}\\n")  # in one piece: ranks share the pipe
"""
RUNS = {
    "holism": {},
    "o2o": {"slots": ["alt_text"], "losses": {"o2o": 1.0}},
    "o2m": {"branches": 1, "losses": {"o2m": 1}},
}


def batch(seed: int, branches: int, slots: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def unit(count: int) -> Tensor:
        x = torch.randn(SAMPLES, count, WIDTH, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(x + 2.0, dim=-1)  # branches near enough for the diversity term

    mask = torch.rand(SAMPLES, slots, generator=generator) < 0.7  # the ranks have unequal numbers of captions
    sides = {"image": unit(branches), "text": unit(slots), "patch": unit(3), "negative": unit(2)}
    tokens = torch.randint(5, 50, (SAMPLES, slots, 4), generator=generator).masked_fill(~mask[:, :, None], END)
    negative_slot = torch.randint(-1, slots, (SAMPLES, 2), generator=generator)
    known = {"mask": mask, "tokens": tokens, "negative_slot": negative_slot}
    return {**sides, **known, "scale": torch.tensor(5.0).double()}


def features_of(leaves: list[Tensor], known: Mapping[str, Tensor], shares: Sequence[int] | None = None) -> Features:
    """Embeddings and the scale as terms see them; second score and token head are the same everywhere."""
    image_BHD, text_BMD, patch_BND, negative_BND, scale = leaves
    torch.manual_seed(0)
    pooling = TextConditionedPooling(WIDTH).double()
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    features = gather(image_BHD, text_BMD, known["mask"], scale, shares)
    features = features.with_negatives(negative_BND, known["negative_slot"])
    head = made_up_head(WIDTH)
    return replace(features, conditioned=partial(pooling, patch_BND), token_BML=known["tokens"], token_loss=head)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_equal_one_process(tmp_path: Path, ranks: int) -> None:
    cases = {name: (batch(seed, H, M), weights) for seed, (name, (H, M, weights)) in enumerate(CASES.items())}
    torch.save(cases, tmp_path / "cases")
    arguments = [str(ranks), str(tmp_path)]
    started = [subprocess.Popen([sys.executable, "-c", RANK_PROGRAM, str(rank), *arguments]) for rank in range(ranks)]
    assert [process.wait(timeout=300) for process in started] == [0] * ranks
    found = [torch.load(tmp_path / f"found.{rank}") for rank in range(ranks)]

    for name, (data, weights) in cases.items():
        leaves = [data[key].clone().requires_grad_() for key in (*LEAVES, "scale")]
        features = features_of(leaves, data)
        loss = weighted_sum(features, weights)
        wanted = torch.autograd.grad(loss.total, leaves, allow_unused=True, materialize_grads=True)
        assert all(value > 0 for value in loss.terms.values())

        def mean(values: list[Tensor]) -> Tensor:
            return torch.stack(values).mean(dim=0)

        total = mean([rank[name]["loss"] for rank in found])
        torch.testing.assert_close(total, loss.total.detach(), rtol=1e-10, atol=0)
        for term, slot_M in loss.by_slot.items():
            torch.testing.assert_close(mean([rank[name]["by_slot"][term] for rank in found]), slot_M, msg=term)
        torch.testing.assert_close(mean([rank[name]["usage"] for rank in found]), usage(features, weights), msg=name)
        # DDP averages over ranks, so a rank's rows carry the number of ranks times their share of the gradient.
        for place in range(len(LEAVES)):
            rows = torch.cat([rank[name]["grads"][place] for rank in found]) / ranks
            torch.testing.assert_close(rows, wanted[place], rtol=1e-8, atol=1e-12, msg=name)
        scale = mean([rank[name]["grads"][-1] for rank in found])
        torch.testing.assert_close(scale, wanted[-1], rtol=1e-8, atol=0, msg=name)


def torchrun(folder: Path, recipe: dict[str, Any], lost: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "program.py").write_text(STAGE_PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, str(folder / "program.py"), str(folder), json.dumps(recipe), lost],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )


@pytest.mark.slow
def test_one_process_group_serves_all_runs(tmp_path: Path, recipe: Callable[..., dict[str, Any]]) -> None:
    done = torchrun(tmp_path, recipe(epochs=1, workers=1, runs=RUNS))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained holism o2o o2m") == 2


@pytest.mark.slow
def test_the_end_of_a_rank_is_that_of_the_others(tmp_path: Path, recipe: Callable[..., dict[str, Any]]) -> None:
    began = time.monotonic()
    done = torchrun(tmp_path, recipe(epochs=1, workers=1, runs=RUNS), "1")
    assert done.returncode != 0
    assert time.monotonic() - began < 90
    assert done.stderr.count("Traceback") == 1  # torchrun's own
    assert "rank 1: no disk" in done.stdout
