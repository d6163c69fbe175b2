"""The training loop of one run.

A run is a pure function of its recipe and its bundles: initial weights follow from the seed, batch n from (seed, n),
the learning rate from n. So a checkpoint's step number is the position of everything, and a run that was killed goes
on with the very batch, and on a CPU the very losses, that an undisturbed run would have had.
"""

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, StoreError
from pipeline.progress import Progress
from pipeline.shards import ShardReader
from pipeline.storage import Location
from training.batches import Batch, BatchMaker
from training.bundles import Bundles
from training.checkpoint import describe, new_model, newest_checkpoint, write_checkpoint
from training.config import RunConfig
from training.gradients import Gradients
from training.health import WINDOW, branch_health, dead_branches
from training.loader import loader, start_server
from training.losses import Features, Loss
from training.metrics import MetricsLog
from training.model import HolisticCLIP
from training.optim import learning_rate, make_optimizer
from training.ranks import Ranks
from training.warm_start import warm_start

CHECKPOINTS, METRICS = "checkpoints", "metrics.jsonl"
LOGIT_SCALE_RANGE = (0.0, math.log(100))  # CLIP's: scales between 1 and 100
MOST_EXAMPLES = 5


@dataclass
class Trained:
    """What a finished run leaves in memory; its rows are those of metrics.jsonl."""

    model: HolisticCLIP
    metrics: bytes
    steps: int
    unreadable: int  # decodings that failed, over all epochs; examples name a few
    examples: list[str]
    dead_branches: list[str]  # a sentence for each
    last: Mapping[str, Any]


@dataclass
class _Run:
    """One run in progress."""

    name: str
    config: RunConfig
    ranks: Ranks
    folder: Location
    batches: BatchMaker
    model: HolisticCLIP
    optimizer: torch.optim.Optimizer
    gradients: Gradients
    step: int = 0
    unreadable: int = 0
    examples: list[str] = field(default_factory=list)
    pending: list[tuple[dict[str, Any], dict[str, Tensor]]] = field(default_factory=list)
    dead: dict[str, str] = field(default_factory=dict)  # a warning for each branch that is dead now


def train(
    name: str,
    config: RunConfig,
    bundles: Bundles,
    reader: ShardReader,
    folder: Location,
    ranks: Ranks,
    on_checkpoint: Callable[[HolisticCLIP, int], None] | None = None,
) -> Trained:
    """Trains one run to its end, from its newest checkpoint if `folder` holds one.

    Raises StoreError where that checkpoint is of other data, ConfigError where the loss stops being a number.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.workers:
        start_server()  # it imports its libraries while this process makes the model
    run = _start(name, config, bundles, reader, folder, ranks)
    log = MetricsLog(folder / METRICS, run.step) if ranks.is_first else None
    pin_memory = ranks.device.type == "cuda"
    with closing(loader(run.batches, run.step, config.workers, pin_memory)) as batches:  # workers end with the loop
        _loop(run, batches, log, on_checkpoint)
    last = log.last(1)[0] if log else {}
    metrics, dead = log.to_bytes() if log else b"", list(run.dead.values())
    return Trained(run.model.eval(), metrics, run.step, run.unreadable, run.examples, dead, last)


def _loop(
    run: _Run,
    batches: Iterable[Batch],
    log: MetricsLog | None,
    on_checkpoint: Callable[[HolisticCLIP, int], None] | None,
) -> None:
    """Steps through the batches; looks, logs and writes checkpoints when they are due."""
    config, order = run.config, run.batches.order
    size = config.global_batch
    progress = Progress(f"train {run.name}", order.steps * size, "images", done=run.step * size) if log else None
    waited_since = time.monotonic()
    for batch in batches:
        began = time.monotonic()
        row, measured = _step(run, batch)
        run.step += 1
        now = time.monotonic()
        row.update(seconds=round(now - waited_since, 5), wait=round(began - waited_since, 5))
        run.pending.append((row, measured))
        waited_since = now
        last_step = run.step == order.steps
        checkpoint_due = run.step % config.checkpoint_every == 0 and not last_step
        if run.step % config.log_every == 0 or checkpoint_due or last_step:
            rows = _look(run)
            if log and progress:
                log.add(rows)
                _warn_of_the_dead(run, log.last(WINDOW))
                progress.update(len(rows) * size, _note(rows))
        if checkpoint_due:
            if log:
                log.save()
                write_checkpoint(run.folder / CHECKPOINTS, _state(run), run.step, config.keep_checkpoints)
            if on_checkpoint:
                on_checkpoint(run.model, run.step)
    if log and progress:
        log.save()
        progress.close()


def _start(
    name: str, config: RunConfig, bundles: Bundles, reader: ShardReader, folder: Location, ranks: Ranks
) -> _Run:
    """A fresh run, or the one whose newest checkpoint is in `folder`."""
    torch.manual_seed(config.seed)
    model = new_model(config)
    if config.warm_start:
        warm_start(model, config.warm_start, config)
    model.to(ranks.device).train()
    side = model.visual.image_size[0]
    batches = BatchMaker(
        config,
        bundles,
        reader,
        canvas=config.canvas or round(side * 8 / 7),
        context_length=model.context_length,
        rank=ranks.rank,
        ranks=ranks.count,
    )
    optimizer, gradients = make_optimizer(model, config), Gradients(model, config, ranks)
    run = _Run(name, config, ranks, folder, batches, model, optimizer, gradients)
    _resume(run)
    return run


def _state(run: _Run) -> dict[str, Any]:
    """All that a checkpoint holds."""
    order = run.batches.order
    return {
        "description": describe(run.model, run.config, run.step),
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "loader": {"step": run.step, "rows": order.rows, "seed": order.seed, "global_batch": order.global_batch},
        "unreadable": run.unreadable,
    }


def _resume(run: _Run) -> None:
    state = newest_checkpoint(run.folder / CHECKPOINTS)
    if state is None:
        return
    order, found = run.batches.order, state["loader"]
    if (found["rows"], found["seed"], found["global_batch"]) != (order.rows, order.seed, order.global_batch):
        raise StoreError(
            f"the checkpoint in {run.folder} was made with {found['rows']} images in batches of "
            f"{found['global_batch']}, this run has {order.rows} in batches of {order.global_batch}; delete its folder"
        )
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    run.step, run.unreadable = int(found["step"]), int(state["unreadable"])


def _step(run: _Run, batch: Batch) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One step of the optimizer. Returns what the host knows of it and, still on the device, what was measured."""
    config, steps = run.config, run.batches.order.steps
    lr = learning_rate(config, batch.step, steps)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    run.optimizer.zero_grad(set_to_none=True)
    features, loss = run.gradients(batch.to(run.ranks.device))
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), config.grad_clip or math.inf)
    run.optimizer.step()
    with torch.no_grad():
        run.model.logit_scale.clamp_(*LOGIT_SCALE_RANGE)
    run.examples += batch.unreadable[: MOST_EXAMPLES - len(run.examples)]
    row = {"step": batch.step, "epoch": round(batch.step / run.batches.order.steps_per_epoch, 4), "lr": lr}
    measured = {"grad_norm": norm, "logit_scale": features.scale.detach(), **_measure(run, features, loss)}
    measured["unreadable"] = torch.tensor(float(len(batch.unreadable)), device=run.ranks.device)
    return row, {name: value.float() for name, value in measured.items()}


def _measure(run: _Run, features: Features, loss: Loss) -> dict[str, Tensor]:
    """The loss, by term and by term and slot, and the branches' health."""
    measured = {"loss": loss.total.detach(), **{f"loss/{term}": value for term, value in loss.terms.items()}}
    for term, slot_M in loss.by_slot.items():
        names = (slot.name for slot in run.config.slots)
        measured |= {f"loss/{term}/{name}": value for name, value in zip(names, slot_M, strict=True)}
    return measured | branch_health(features, run.model.slots, run.config.losses)


def _look(run: _Run) -> list[dict[str, Any]]:
    """Fetches the pending steps' figures, means over ranks, in one transfer from the device.

    The loss of a slot that held no caption in a batch is None.
    """
    if not run.pending:
        return []
    names = list(run.pending[0][1])
    table = run.ranks.mean(
        torch.stack([torch.stack([values[n] for n in names]) for _, values in run.pending])
    ).tolist()
    rows = [
        {**row, **dict(zip(names, figures, strict=True))} for (row, _), figures in zip(run.pending, table, strict=True)
    ]
    run.pending.clear()
    for row in rows:
        run.unreadable += round(row["unreadable"] * run.ranks.count)
        row["unreadable"] = run.unreadable
        row["img_per_s"] = round(run.config.global_batch / row["seconds"], 1)
        # A gradient that is no number has made the weights none, though the loss before it was one.
        for name, what in (("loss", "loss"), ("grad_norm", "gradient norm")):
            if not math.isfinite(row[name]):
                raise ConfigError(
                    f"train: the {what} of run {run.name} is {row[name]} at step {row['step']}; lower train.lr, "
                    "lengthen train.warmup_steps, or set train.precision to fp32"
                )
    return [{key: None if _is_nan(value) else value for key, value in row.items()} for row in rows]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _warn_of_the_dead(run: _Run, rows: Sequence[Mapping[str, Any]]) -> None:
    """Says so when a branch dies; `run.dead` holds those that are dead by the last rows."""
    dead = dead_branches(rows, run.model.slots)
    for name in dead.keys() - run.dead.keys():
        print(f"train {run.name}: warning: {dead[name]}", file=sys.stderr, flush=True)
    run.dead = dead


def _note(rows: list[dict[str, Any]]) -> str:
    last = rows[-1]
    waiting = 100 * sum(row["wait"] for row in rows) / max(sum(row["seconds"] for row in rows), 1e-9)
    return f"epoch {last['epoch']:.1f} loss {last['loss']:.3f} lr {last['lr']:.1e} data wait {waiting:.0f} %"
