"""The loop: it learns, it survives being killed without a trace, and ranks compute what one process does."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config import build
from pipeline.errors import ConfigError, StoreError
from pipeline.ingest import shard_uris
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.training.conftest import captions_of, make_inputs
from training import trainer
from training.bundles import read_bundles
from training.checkpoint import new_model
from training.config import RunConfig
from training.optim import learning_rate, make_optimizer
from training.ranks import Ranks
from training.trainer import CHECKPOINTS, METRICS, Trained, train

Recipe = Callable[..., dict[str, Any]]
ALONE = Ranks(0, 1, torch.device("cpu"))
TIMING = {"seconds", "wait", "img_per_s"}

# A process of its own that trains the recipe it is given; `hang` makes it stop for ever at a step, to be killed there.
PROGRAM = """
import json, sys, time
from pathlib import Path
import torch
from tests.training.test_trainer import run
from training import trainer
from training.ranks import joined
folder, recipe, hang = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
original = trainer._step
def step(state, batch):
    while batch.step == hang:
        time.sleep(1)
    return original(state, batch)
trainer._step = step
with joined("cpu") as ranks:
    trained = run(folder, recipe, ranks)
    if ranks.is_first:
        torch.save((trained.unreadable, trained.model.state_dict()), folder / "trained.pt")
"""


def run(
    folder: Path, recipe: dict[str, Any], ranks: Ranks = ALONE, damaged: Sequence[int] = (5,), count: int = 20
) -> Trained:
    """Trains on 20 pictures, one of which does not decode."""
    config = build(RunConfig, recipe)
    inputs = make_inputs(folder / f"inputs-{ranks.rank}", count, damaged=tuple(damaged))
    reader = ShardReader(shard_uris(inputs["ingest"]))
    return train("t", config, read_bundles(inputs["curate"], config.slots), reader, Location.of(folder / "run"), ranks)


def start(
    folder: Path, recipe: dict[str, Any], hang: int = -1, environment: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(folder), json.dumps(recipe), str(hang)]
    return subprocess.Popen(command, env={**os.environ, **(environment or {})}, start_new_session=True)


def figures(metrics: bytes) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without what the clock decides."""
    rows = [json.loads(line) for line in metrics.splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


def test_training_brings_the_loss_down(tmp_path: Path, recipe: Recipe) -> None:
    trained = run(tmp_path, recipe(epochs=20, losses={"m2m": 1.0, "served": 0.5}))
    rows = figures(trained.metrics)
    assert [row["step"] for row in rows] == list(range(60)) == list(range(trained.steps))
    first, last = (sum(row["loss"] for row in part) / 6 for part in (rows[:6], rows[-6:]))
    assert last < 0.8 * first
    assert all(abs(row["loss"] - row["loss/m2m"] - 0.5 * row["loss/served"]) < 1e-4 for row in rows)
    of_a_step = {"grad_norm", "logit_scale", "lr", "epoch", "branch_cosine", "usage/style", "loss/m2m/style"}
    assert all(of_a_step <= set(row) for row in rows)
    assert rows[-1]["unreadable"] == trained.unreadable > 0
    assert trained.examples[0].startswith("0005.jpg")


@pytest.mark.parametrize(
    ("changes", "moved"),
    [({}, True), ({"warmup_steps": 10**9}, False), ({"grad_clip": 1e-15, "weight_decay": 0.0}, False)],
)
def test_weights_move_by_the_learning_rate_and_the_clipped_gradient(
    tmp_path: Path, recipe: Recipe, changes: dict[str, Any], moved: bool
) -> None:
    settings = recipe(epochs=1, **changes)
    trained = run(tmp_path, settings)
    torch.manual_seed(0)
    fresh = new_model(build(RunConfig, settings)).state_dict()
    apart = max(float((value - fresh[name]).abs().max()) for name, value in trained.model.state_dict().items())
    assert (apart > 1e-4) == moved
    assert moved or apart < 1e-7


def test_the_logit_scale_stays_in_its_range(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LOGIT_SCALE_RANGE", (0.0, 2.0))  # CLIP starts at 2.66
    first, *rest = (row["logit_scale"] for row in figures(run(tmp_path, recipe(epochs=1)).metrics))
    assert first == pytest.approx(1 / 0.07, rel=1e-4)
    assert all(scale <= math.exp(2.0) + 1e-4 for scale in rest)


def test_bf16_trains_nearly_as_fp32_does(tmp_path: Path, recipe: Recipe) -> None:
    rows = [
        figures(run(tmp_path / precision, recipe(epochs=1, precision=precision)).metrics)
        for precision in ("fp32", "bf16")
    ]
    for exact, rough in zip(*rows, strict=True):
        assert rough["loss"] == pytest.approx(exact["loss"], rel=0.05)
        assert rough["loss"] != exact["loss"]


def test_batches_without_any_caption_are_steps_that_cost_nothing(tmp_path: Path, recipe: Recipe) -> None:
    trained = run(tmp_path, recipe(epochs=1), damaged=range(20))
    assert [row["loss"] for row in figures(trained.metrics)] == [0.0] * 3
    assert trained.unreadable == 18


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, recipe: Recipe) -> None:
    settings = recipe(epochs=4, checkpoint_every=4, keep_checkpoints=1)
    # Each run is a process of its own, as in life: what other tests did to torch must not count.
    undisturbed = start(tmp_path / "undisturbed", settings)
    assert undisturbed.wait(timeout=300) == 0
    killed = start(tmp_path / "killed", settings, hang=7)  # past the checkpoint of step 4, its log at step 6
    metrics, checkpoints = (tmp_path / "killed" / "run" / name for name in (METRICS, CHECKPOINTS))
    written = checkpoints / "step-000000004.pt"  # beside the steps, so perhaps after the log of step 6
    deadline = time.monotonic() + 300
    try:
        while not (written.exists() and metrics.exists() and len(metrics.read_bytes().splitlines()) == 6):
            assert killed.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    with metrics.open("ab") as handle:
        handle.write(b'{"step": 6, "lo')  # as a kill in the middle of a line leaves it
    assert list(checkpoints.iterdir()) == [written]
    again = start(tmp_path / "killed", {**settings, "workers": 2})  # another number of workers, on purpose
    assert again.wait(timeout=300) == 0
    assert figures(metrics.read_bytes()) == figures((tmp_path / "undisturbed" / "run" / METRICS).read_bytes())
    unreadable, weights = torch.load(tmp_path / "undisturbed" / "trained.pt")
    unreadable_again, weights_again = torch.load(tmp_path / "killed" / "trained.pt")
    assert unreadable_again == unreadable
    for name, weight in weights.items():
        assert torch.equal(weight, weights_again[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_ranks_train_as_one_process_does(tmp_path: Path, recipe: Recipe, count: int) -> None:
    """Four ranks share a batch of six: two of them have one image, two have two."""
    settings = recipe(epochs=2, losses={"m2m": 1.0, "served": 1.0, "tokens": 0.5}, hard_negatives=1)
    alone = run(tmp_path / "alone", settings)
    port = str(20000 + (os.getpid() + count) % 20000)
    together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [start(tmp_path / "ranks", settings, environment={"RANK": str(rank), **together}) for rank in range(count)]
    assert [process.wait(timeout=300) for process in ranks] == [0] * count
    found = figures((tmp_path / "ranks" / "run" / METRICS).read_bytes())
    for one, other in zip(figures(alone.metrics), found, strict=True):
        del one["tokens"], other["tokens"]  # ranks make length groups of their own
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    run(tmp_path, recipe(checkpoint_every=2))
    other = recipe(checkpoint_every=2, global_batch=10, losses={"m2m": 0.5, "served": 1.0}, log_every=1)
    differences = r"recipe losses.m2m is 1.0 there and 0.5 here; recipe global_batch is 6 there and 10 here; move"
    with pytest.raises(StoreError, match=differences):
        run(tmp_path, other)
    with pytest.raises(StoreError, match=r"of another run: data images is 20 there and 18 here"):
        run(tmp_path, recipe(checkpoint_every=2), count=18)


def letters(text: str) -> str:
    """What of a text comes back from its tokens."""
    return "".join(text.lower().split())


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.learning_rate", lambda *_: 1e30)  # more than a configuration may ask for
    settings = recipe(warmup_steps=0, grad_clip=None, epochs=20, log_every=5)
    with pytest.raises(ConfigError, match=r"run t was ended, as the loss is (nan|inf) at step \d+; look at") as raised:
        run(tmp_path, settings)
    (file,) = (tmp_path / "run").glob("batch-*.jsonl")
    assert f"captions in {file}, lower train.lr" in str(raised.value)
    step = int(file.stem.removeprefix("batch-"))
    samples = [json.loads(line) for line in file.read_text().splitlines()]
    assert f"at step {step};" in str(raised.value)
    assert len({sample["image_id"] for sample in samples}) == settings["global_batch"]
    for sample in samples:  # what the batch itself holds
        texts = [text["text"] for text in captions_of(int(sample["key"][:4]))]
        assert set(map(letters, sample["captions"].values())) <= set(map(letters, texts))
        assert set(sample["captions"]) <= set(settings["slots"])


def test_a_gradient_that_is_no_number_stops_the_run(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights are none from there on, and after the last step no loss would tell."""

    def broken(weights: Iterable[Tensor], *_: Any) -> Tensor:
        return torch.full((), torch.nan)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", broken)
    with pytest.raises(ConfigError, match=r"as the gradient norm is nan at step 0; look at"):
        run(tmp_path, recipe(epochs=1, global_batch=20))


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    config = build(RunConfig, {"lr": 1.0, "warmup_steps": 10})
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_only_matrices_decay(tiny_architecture: dict[str, Any]) -> None:
    from training.model import HolisticCLIP

    model = HolisticCLIP(tiny_architecture, ("a", "b"))
    decayed, free = make_optimizer(model, build(RunConfig, {"weight_decay": 0.3})).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.3, 0.0)
    undecayed = {id(parameter) for parameter in free["params"]}
    for name, parameter in model.named_parameters():
        embedding = name.endswith(("class_embedding", "positional_embedding"))
        assert (id(parameter) in undecayed) == (parameter.ndim < 2 or embedding), name
