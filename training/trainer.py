"""The training loop of one run.

A run is a pure function of its recipe and its bundles: initial weights follow from the seed, batch n from (seed, n),
the learning rate from n. So a checkpoint's step number is the position of everything, and a run that was killed goes
on with the very batch, and on a CPU the very losses, that an undisturbed run would have had.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.messages import say
from pipeline.progress import Progress
from pipeline.shards import ShardReader
from pipeline.stops import Held, held_back
from pipeline.storage import Location
from training.batches import Batch, BatchMaker
from training.bundles import Bundles
from training.checkpoint import describe, new_model
from training.config import RunConfig
from training.ema import Ema
from training.evaluations import PREFIX, Evaluations, Evaluator
from training.figures import Figures, not_a_number
from training.flops import utilisation
from training.frozen import Embedder, FrozenEmbeddings, WithoutPictures
from training.gradients import Gradients
from training.loader import loader
from training.metrics import MetricsLog
from training.model import HolisticCLIP
from training.optim import freeze, learning_rate, make_optimizer, set_learning_rate
from training.origin import origin, other_code, require_same
from training.processes import start_server
from training.ranks import Ranks, Votes
from training.record import Record
from training.saving import CheckpointWriter, best_checkpoint, newest_checkpoint
from training.sinks import RunInfo, Sinks
from training.token_head import add_token_head
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
    ema: HolisticCLIP | None = None  # with the averaged weights, where the recipe keeps them


@dataclass
class _Run:
    """One run in progress."""

    name: str
    config: RunConfig
    ranks: Ranks
    folder: Location
    origin: Mapping[str, Any]
    batches: BatchMaker
    frozen: FrozenEmbeddings | None  # in place of pictures
    model: HolisticCLIP
    optimizer: torch.optim.Optimizer
    gradients: Gradients
    figures: Figures
    ema: Ema | None
    step: int = 0
    is_whole: bool = True  # False while weights are changed: all else that a step does leaves the state as it was
    examples: list[str] = field(default_factory=list)


def train(
    name: str,
    config: RunConfig,
    bundles: Bundles,
    reader: ShardReader,
    folder: Location,
    ranks: Ranks,
    on_checkpoint: Callable[[HolisticCLIP, int], None] | None = None,
    data: str = "",
    evaluator: Evaluator | None = None,
    cache: Location | None = None,
) -> Trained:
    """Trains one run to its end, from its newest checkpoint if `folder` holds one.

    `data` is a digest of the samples; `evaluator` measures the model on the way, where the recipe wants that; `cache`
    is a folder of this machine for embeddings (without one: the run's own). A stop by hand writes a checkpoint first.
    Raises StoreError where the checkpoint that is there is of another recipe or other data, ConfigError where the loss
    stops being a number.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.workers:
        start_server()  # it imports its libraries while this process makes the model
    run = _start(name, config, bundles, reader, folder, ranks, data, cache or folder / "embeddings")
    pin_memory = ranks.device.type == "cuda"
    with (
        held_back() as stop,
        CheckpointWriter(folder / CHECKPOINTS, config.keep_checkpoints) as checkpoints,
        closing(loader(run.batches, run.step, config.workers, pin_memory)) as batches,  # workers end with the loop
    ):
        record = _record(run, checkpoints, evaluator) if ranks.is_first else None
        try:
            if record and record.evaluations and run.step == 0:
                record.evaluations.try_out()
            _loop(run, batches, record, stop, on_checkpoint)
        except BaseException:
            # A stop that did not wait for the end of its step.
            if record and not record.is_closed and stop.signal and run.is_whole:
                if ranks.count == 1:  # others no longer answer: figures since the last look are missing in the log
                    record.add(_look(run))
                record.save_and_say(stop)
            raise
        finally:
            if record:
                record.sinks.close()
        if record:
            record.close()
    log = record.log if record else None
    last = log.last(1)[0] if log else {}
    metrics, dead = log.to_bytes() if log else b"", list(record.dead.values()) if record else []
    mean = run.ema.model if run.ema else None
    return Trained(run.model.eval(), metrics, run.step, run.figures.unreadable, run.examples, dead, last, mean)


def _record(run: _Run, checkpoints: CheckpointWriter, evaluator: Evaluator | None) -> Record:
    config, size = run.config, run.config.global_batch
    info = RunInfo(run.name, run.folder.name, run.origin["recipe"], run.folder, run.step)
    return Record(
        run.name,
        config,
        run.model.slots,
        lambda: _state(run),
        MetricsLog(run.folder / METRICS, run.step),
        Sinks(config.sinks, info),
        checkpoints,
        Progress(f"train {run.name}", run.batches.order.steps * size, "images", done=run.step * size),
        _evaluations(run, evaluator),
    )


def _evaluations(run: _Run, evaluator: Evaluator | None) -> Evaluations | None:
    if not run.config.evaluation.every:
        return None
    if evaluator is None:
        raise ConfigError("train.evaluation is set, but nothing that evaluates was handed in; use holism train or run")
    evaluations = Evaluations(run.name, run.config, run.model, evaluator, run.ema.model if run.ema else None)
    if run.config.best and run.step and (best := best_checkpoint(run.folder)):
        evaluations.best = best["figures"].get(f"{PREFIX}{run.config.best.figure}")
    return evaluations


def _loop(
    run: _Run,
    batches: Iterable[Batch],
    record: Record | None,
    stop: Held,
    on_checkpoint: Callable[[HolisticCLIP, int], None] | None,
) -> None:
    """Steps through the batches; looks, evaluates and saves when that is due. Returns early when stopped.

    All ranks look, since figures are means over them. The first one alone evaluates and writes; the others go on to
    the next step, and wait for it there.
    """
    config, last_step = run.config, run.batches.order.steps
    votes = Votes(run.ranks)
    began = waiting = time.monotonic()  # of the step, and of the wait for its data
    for batch in batches:
        wait = time.monotonic() - waiting
        row, measured = _step(run, batch)
        ended = time.monotonic()
        row.update(seconds=round(ended - began, 5), wait=round(wait, 5))
        began = ended
        run.figures.add(row, measured)
        run.is_whole = True
        stopping = votes(stop.signal is not None)
        is_last = run.step == last_step
        save = stopping or (run.step % config.checkpoint_every == 0 and not is_last)
        every = config.evaluation.every
        evaluate = every is not None and not stopping and (run.step % every == 0 or is_last)
        if save or evaluate or run.step % config.log_every == 0 or is_last:
            rows = _look(run)
            if record:
                record.checkpoints.check()
                began += record.evaluate_and_add(rows) if evaluate else record.add(rows)
                if not stopping and (save or (record.is_late and not is_last)):
                    record.save()
        if stopping:
            _leave(record, stop)
        if save and on_checkpoint:
            on_checkpoint(run.model, run.step)
        waiting = time.monotonic()
    if votes.last():
        _leave(record, stop)


def _leave(record: Record | None, stop: Held) -> None:
    """On all ranks, whichever of them was stopped."""
    stop.join()
    if record:
        record.save_and_say(stop)
    stop.deliver()


def _start(
    name: str,
    config: RunConfig,
    bundles: Bundles,
    reader: ShardReader,
    folder: Location,
    ranks: Ranks,
    data: str,
    cache: Location,
) -> _Run:
    """A fresh run, or the one whose newest checkpoint is in `folder`."""
    torch.manual_seed(config.seed)
    model = new_model(config)
    if config.warm_start:
        warm_start(model, config.warm_start, config)
    add_token_head(model, config, bundles)
    freeze(model, config)
    model.to(ranks.device).train()
    ema = Ema(model, config.ema) if config.ema else None
    share_of_peak = utilisation(model, config, ranks)
    if config.activation_checkpointing:
        model.make_activations_again()
    if config.compile:
        model.compile_towers()
        if ema and config.has_teacher:
            ema.model.compile_towers()
    canvas = config.canvas or round(model.visual.image_size[0] * 8 / 7)
    share = {"context_length": model.context_length, "rank": ranks.rank, "ranks": ranks.count}
    batches, frozen = BatchMaker(config, bundles, reader, canvas=canvas, **share), None
    if config.cache_features:
        frozen = Embedder(name, model, config, reader, batches, canvas, ranks).embeddings(cache)
        batches = WithoutPictures(config, bundles, reader, canvas=canvas, **share)
    optimizer = make_optimizer(model, config)
    gradients = Gradients(model, config, ranks, ema.model if ema and config.has_teacher else None)
    samples = {"images": batches.order.rows, "captions": data, **batches.order.facts}
    figures = Figures(config, model.slots, ranks, share_of_peak)
    comes_from = origin(config, samples)
    run = _Run(name, config, ranks, folder, comes_from, batches, frozen, model, optimizer, gradients, figures, ema)
    _resume(run)
    return run


def _state(run: _Run) -> dict[str, Any]:
    """All that a checkpoint holds."""
    return {
        "description": describe(run.model, run.config, run.step),
        "origin": run.origin,
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        **({"ema": run.ema.state_dict()} if run.ema else {}),
        "rng": torch.get_rng_state(),
        "step": run.step,
        "unreadable": run.figures.unreadable,
    }


def _resume(run: _Run) -> None:
    """From the newest checkpoint in the run's folder, if there is one."""
    state = newest_checkpoint(run.folder / CHECKPOINTS)
    if state is None:
        return
    written_by = state["origin"]
    require_same(written_by, run.origin, run.folder / CHECKPOINTS)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.ema:
        run.ema.load_state_dict(state["ema"])
    torch.set_rng_state(state["rng"])
    run.step, run.figures.unreadable = int(state["step"]), int(state["unreadable"])
    if run.ranks.is_first:
        changed = other_code(written_by)
        text = f"goes on from step {run.step}" + (f"; {changed}" if changed else "")
        say(f"train {run.name}: {text}")


def _step(run: _Run, batch: Batch) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One step of the optimizer. Returns what the host knows of it and, still on the device, what was measured."""
    config, steps = run.config, run.batches.order.steps
    lr = learning_rate(config, batch.step, steps)
    set_learning_rate(run.optimizer, lr)
    run.optimizer.zero_grad(set_to_none=True)
    if run.frozen:
        batch = run.frozen.fill(batch, run.batches.share(batch.step).samples, run.batches.bundles)
    features, loss = run.gradients(batch.to(run.ranks.device))
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), config.grad_clip or math.inf)
    measured = run.figures.measure(batch, features, loss, norm)
    row = {"step": batch.step, "epoch": round(batch.step / run.batches.order.steps_per_epoch, 4), "lr": lr}
    run.is_whole = False  # until the loop has counted this step
    run.optimizer.step()
    with torch.no_grad():
        run.model.logit_scale.clamp_(*LOGIT_SCALE_RANGE)
    if run.ema:
        run.ema.update(batch.step)
    run.step += 1
    run.examples += batch.unreadable[: MOST_EXAMPLES - len(run.examples)]
    return row, measured


def _look(run: _Run) -> list[dict[str, Any]]:
    """The figures since the last look. A loss that is no number ends the run, with its batch left for inspection."""
    rows = run.figures.look()
    if (broken := not_a_number(rows)) is None:
        return rows
    what, row = broken
    file = run.folder / f"batch-{row['step']:09d}.jsonl"
    if run.ranks.is_first:
        file.write("".join(json.dumps(sample) + "\n" for sample in run.batches.inspect(row["step"])).encode())
    raise ConfigError(
        f"train: run {run.name} was ended, as {what}; look at its images and captions in {file}, lower train.lr, "
        "lengthen train.warmup_steps, or set train.precision to fp32"
    )
