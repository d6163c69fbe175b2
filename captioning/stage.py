"""The caption stage: images in, many captions of every image out.

What is missing is found first, from records alone. A model and its engine are only looked for if there is work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from captioning import hub, prompts, ray_job, store, tables
from captioning.config import CaptionConfig
from captioning.estimate import preview
from captioning.missing import Demand
from captioning.models import Model, resolve
from captioning.rounds import ROUND, Round
from captioning.worker import WorkerSpec
from pipeline.commits import Part
from pipeline.config import semantic
from pipeline.errors import ConfigError, EngineError
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.stage import Outcome, Stage, StageRun
from pipeline.storage import Location
from pipeline.workspace import Workspace

SECONDS = ("decode_seconds", "preprocess_seconds", "encode_seconds")


def run(stage_run: StageRun) -> Outcome:
    """Write the captions that are missing (or failed, if asked to) and select those of this configuration.

    Tables come first: a mistake in one must not be found after hours of an engine's work.
    """
    folder = stage_run.workspace.folder("caption")
    demand = Demand.of(stage_run.config, stage_run.inputs["ingest"], folder)
    brought = tables.bring_in(stage_run.config.tables, stage_run.inputs["ingest"], folder)
    return tables.add(_write(stage_run.config, folder, demand, retry_failed=stage_run.retry_failed), brought)


def run_round(
    config: CaptionConfig, ingest: Manifest, workspace: Workspace, further: Round, *, retry_failed: bool = False
) -> Manifest:
    """Write what is missing of a further round (or failed, if asked to) to the same store.

    The manifest names the round's captions alone.
    """
    if not config.models:
        raise ConfigError(
            "curate.regenerate asks models again, but caption.models is empty; name one, or set rounds: 0"
        )
    drawn = config.sampling.model_copy(update={"temperature": max(further.temperature, config.sampling.temperature)})
    config = config.model_copy(update={"sampling": drawn})
    started, folder = time.monotonic(), workspace.folder("caption")
    demand = Demand.of(config, ingest, folder, further)
    outcome = _write(config, folder, demand, retry_failed=retry_failed)
    manifest = Manifest(
        stage=ROUND,
        fingerprint=digest(sorted(cell.id for cell in demand.cells)),
        version=STAGE.version,
        config=semantic(config),
        inputs={"ingest": ingest.digest, "images": further.images.digest},
        store=outcome.store,
        parts=tuple(part for part in outcome.parts if part.rows),
        counts=outcome.counts,
        detail=outcome.detail,
        warnings=tuple(outcome.warnings),
        created_at=datetime.now(UTC).isoformat("T", "milliseconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    workspace.save(manifest)
    return manifest


def _write(config: CaptionConfig, folder: Location, demand: Demand, *, retry_failed: bool) -> Outcome:
    started = time.monotonic()
    made: list[Part] = []
    new, rates = 0, dict[str, float]()
    progress: Progress | None = None
    for reference, model in zip(config.models, demand.models, strict=True):
        own = demand.of_model(model)
        items = demand.work(own, config.chunk_images, retry_failed=retry_failed)
        if not items:
            continue
        progress = progress or _progress(demand, retry_failed)
        print(f"caption: {len(items):,} chunks for {model.name}; an engine can take a while to start", file=sys.stderr)
        began, before_all = time.monotonic(), new
        for part in ray_job.run(WorkerSpec(folder, demand.shares, reference, config.engine), items, config):
            before = demand.captions(demand.parts.get(part.name), own)
            demand.parts[part.name] = part
            made.append(part)
            fresh = demand.captions(part, own) + demand.errors(part, own) - before
            new += fresh
            progress.update(fresh)
        rates[model.name] = round((new - before_all) / (time.monotonic() - began), 2)
    if progress is not None:
        progress.close()
    spent = {
        "new_captions": new,
        "seconds": round(time.monotonic() - started, 1),
        "captions_per_second": round(new / (time.monotonic() - started), 1) if new else 0.0,
        "rate_by_model": rates,
        "engine_deaths": sum(part.detail["engine_died"] is not None for part in made),
        "work_seconds": {name: round(sum(part.detail[name] for part in made), 1) for name in SECONDS},
    }
    died = next((part.detail["engine_died"] for part in reversed(made) if part.detail["engine_died"]), None)
    return _outcome(str(folder), config, demand, spent, died)


def _progress(demand: Demand, retry_failed: bool) -> Progress:
    parts = demand.selected()
    done = sum(demand.captions(part) + (0 if retry_failed else demand.errors(part)) for part in parts)
    return Progress("caption", demand.expected(), "captions", done=done)


def _outcome(
    folder: str, config: CaptionConfig, demand: Demand, spent: Mapping[str, Any], died: str | None
) -> Outcome:
    parts = demand.selected()
    totals, perspectives = _totals(demand, parts)
    reason = next((part.detail["first_error"] for part in parts if demand.errors(part)), None)
    if totals["errors"] and not totals["captions"]:
        raise EngineError(
            f"all {totals['errors']:,} captions failed, the first with: {reason}; put that right and run again with "
            "--retry-failed"
        )
    counts: dict[str, Any] = {
        **totals,
        **spent,
        "cached_share": round(totals["cached_tokens"] / max(1, totals["prompt_tokens"]), 3),
        "perspectives": perspectives,
    }
    detail = {"cells": {cell.id: cell.describe() for cell in demand.cells}}
    warnings = _warnings(config, demand.models, totals, reason)
    if died is not None:
        warnings.append(f"an engine died and was started again, the last time with: {died}")
    return Outcome(folder, parts, counts, detail, warnings)


def _totals(demand: Demand, parts: Sequence[Part]) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Sums over all parts, and captions and errors by perspective."""
    perspective_of = {cell.id: cell.prompt.perspective for cell in demand.cells}
    totals = dict.fromkeys(store.COUNTED, 0)
    perspectives: dict[str, dict[str, int]] = {}
    for part in parts:
        for cell, count in store.figures_of(part, perspective_of).items():
            own = perspectives.setdefault(perspective_of[cell], {"captions": 0, "errors": 0})
            for name, value in count.items():
                totals[name] += value
                if name in own:
                    own[name] += value
    return totals, perspectives


def _warnings(
    config: CaptionConfig, models: Sequence[Model], totals: Mapping[str, int], reason: str | None
) -> list[str]:
    warnings = []
    if totals["errors"]:
        asked = totals["captions"] + totals["errors"]
        warnings.append(
            f"{totals['errors']:,} of {asked:,} captions failed, the first: {reason}; run again with --retry-failed"
        )
    if totals["quarantined"]:
        warnings.append(
            f"{totals['quarantined']:,} of them are of images that killed the engine each time; look at these images "
            "(status error in the captions table) before you try them again"
        )
    for reference, model in zip(config.models, models, strict=True):
        on_hub = config.engine.kind not in ("fake", "openai") and not model.is_folder
        if on_hub and not hub.is_commit(reference.revision or ""):
            pin = model.revision if hub.is_commit(model.revision) else "COMMIT"
            warnings.append(
                f"the model {model.name} is not pinned ({reference.revision or hub.MAIN} may move on); "
                f"pin it: models: [{{model: {reference.model}, revision: {pin}}}]"
            )
    return warnings


def external(config: CaptionConfig) -> dict[str, str]:
    """Digests of the prompts, models and tables that the configuration only names."""
    known = prompts.load(config.prompts.set)
    chosen = known.select(config.prompts.only)
    named = [known.get(name) for prompt in chosen for name in prompt.answers]
    digests = {"prompts": digest([_identity(prompt) for prompt in [*chosen, *named]])}
    digests |= tables.external(config.tables)
    return digests | {
        f"model:{reference.model}": resolve(reference, config.engine).revision for reference in config.models
    }


def _identity(prompt: prompts.Prompt) -> dict[str, Any]:
    """What a prompt says; what it leaves open stays out, so that new settings change no fingerprint."""
    return prompt.model_dump(exclude_defaults=True)


STAGE = Stage("caption", 1, ("ingest",), CaptionConfig, run, external, preview)
