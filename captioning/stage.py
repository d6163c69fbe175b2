"""The caption stage: images in, many captions of every image out.

What is missing is found first, from records alone. A model and its engine are only looked for if there is work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from captioning import hub, prompts, store
from captioning.asking import job
from captioning.asking.estimate import preview
from captioning.asking.missing import Demand, tokens
from captioning.asking.worker import WorkerSpec
from captioning.config import CaptionConfig
from captioning.describe import describe
from captioning.importing import tables
from captioning.models import Model, resolve
from captioning.rounds import ROUND, Round
from captioning.store import WorkItem
from pipeline.cluster.config import ClusterConfig
from pipeline.commits import Part
from pipeline.config import semantic
from pipeline.errors import ConfigError, EngineError
from pipeline.identity import digest, union
from pipeline.manifest import Manifest
from pipeline.messages import say
from pipeline.progress import Progress
from pipeline.stage import Outcome, Stage, StageRun
from pipeline.storage import Location
from pipeline.summary import counted
from pipeline.workspace import Workspace

SECONDS = ("decode_seconds", "preprocess_seconds", "encode_seconds")


def run(stage_run: StageRun) -> Outcome:
    """Write the captions that are missing (or failed, if asked to) and select those of this configuration.

    Tables come first: a mistake in one must not be found after hours of an engine's work.
    """
    folder, ingest = stage_run.workspace.folder("caption"), stage_run.inputs["ingest"]
    demand = Demand.of(stage_run.config, ingest, folder, save=True, verify=stage_run.retry_failed)
    imported = tables.import_captions(stage_run.config.tables, ingest, folder)
    written = _write(stage_run.config, demand, stage_run.cluster, retry_failed=stage_run.retry_failed)
    return _selecting(tables.add(written, imported), ingest)


def run_round(
    config: CaptionConfig,
    ingest: Manifest,
    workspace: Workspace,
    further: Round,
    cluster: ClusterConfig,
    *,
    retry_failed: bool = False,
) -> Manifest:
    """Write what is missing of a regeneration round (or failed, if asked to) to the same store.

    The manifest names the round's captions alone.
    """
    if not config.models:
        raise ConfigError(
            "curate.regenerate asks models again, but caption.models is empty; name one, or set rounds: 0"
        )
    drawn = config.sampling.model_copy(update={"temperature": max(further.temperature, config.sampling.temperature)})
    config = config.model_copy(update={"sampling": drawn})
    started, folder = time.monotonic(), workspace.folder("caption")
    demand = Demand.of(config, ingest, folder, further, save=True, verify=retry_failed)
    outcome = _selecting(_write(config, demand, cluster, retry_failed=retry_failed), ingest)
    manifest = Manifest(
        stage=ROUND,
        fingerprint=digest(sorted(cell.id for cell in demand.cells)),
        version=STAGE.version,
        config=semantic(config),
        inputs={"ingest": ingest.digest, "images": further.images.digest},
        store=outcome.store,
        parts=tuple(outcome.parts),
        digest=outcome.digest,
        counts=outcome.counts,
        detail=outcome.detail,
        warnings=tuple(outcome.warnings),
        created_at=datetime.now(UTC).isoformat("T", "milliseconds"),
        seconds=round(time.monotonic() - started, 3),
    )
    workspace.save(manifest)
    return manifest


def _write(config: CaptionConfig, demand: Demand, cluster: ClusterConfig, *, retry_failed: bool) -> Outcome:
    started, made = time.monotonic(), dict[str, Part]()
    work = [
        (reference, model, demand.work(demand.of_model(model), config.chunk_images, retry_failed=retry_failed))
        for reference, model in zip(config.models, demand.models, strict=True)
    ]
    left, rates = sum(item.captions for _, _, items in work for item in items), dict[str, float]()
    if left:
        progress = _progress(demand, left, retry_failed)
        for reference, model, items in work:
            if items:
                rates[model.name] = _ask(WorkerSpec(demand.folder, demand.shares, reference, config.engine), items,
                                         config, cluster, model, made, progress)  # fmt: skip
        progress.close()
        demand = demand.updated(made)
    new = sum(part.rows for part in made.values())
    spent = {
        "new_captions": new,
        "seconds": round(time.monotonic() - started, 1),
        "captions_per_second": round(new / (time.monotonic() - started), 1) if new else 0.0,
        "rate_by_model": rates,
        "engine_deaths": sum(part.detail["engine_died"] is not None for part in made.values()),
        "work_seconds": {name: round(sum(part.detail[name] for part in made.values()), 1) for name in SECONDS},
    }
    died = next((part.detail["engine_died"] for part in made.values() if part.detail["engine_died"]), None)
    return _outcome(config, demand, spent, died)


def _ask(
    spec: WorkerSpec,
    items: Sequence[WorkItem],
    config: CaptionConfig,
    cluster: ClusterConfig,
    model: Model,
    made: dict[str, Part],
    progress: Progress,
) -> float:
    """Have one model answer its items; its parts go into `made`.

    Returns its captions per second, without the time that its engine took to start.
    """
    say(f"caption: {counted(len(items), 'chunk')} for {model.name}; an engine can take a while to start")
    began, rows, waited = time.monotonic(), 0, None
    with closing(job.run(spec, items, config, cluster)) as parts:  # a stop in here ends the work at once
        for part in parts:
            if waited is None:
                waited = _waited(part, time.monotonic() - began)
                progress.waited(waited)
            made[part.name] = part
            rows += part.rows
            progress.update(part.rows)
    return round(rows / max(time.monotonic() - began - (waited or 0), 1e-6), 2)


def _waited(first: Part, seconds: float) -> float:
    """How long the engine took to start: so much of the `seconds` to the first part was over when that began."""
    return min(max(seconds - (time.time() - float(first.detail["began"])), 0), seconds)


def _progress(demand: Demand, left: int, retry_failed: bool) -> Progress:
    done = sum(count["captions"] + (0 if retry_failed else count["errors"]) for count in demand.totals().values())
    return Progress("caption", done + left, "captions", done=done)


def _outcome(config: CaptionConfig, demand: Demand, spent: Mapping[str, Any], died: str | None) -> Outcome:
    selected = demand.selected()
    parts = [part for part, _ in selected]
    by_cell, perspectives = demand.totals(), dict[str, dict[str, int]]()
    for cell in demand.cells:
        own = perspectives.setdefault(cell.prompt.perspective, {"captions": 0, "errors": 0})
        for name in own:
            own[name] += by_cell[cell.id][name]
    names = ("captions", "errors", "quarantined")
    totals = {name: sum(count[name] for count in by_cell.values()) for name in names} | tokens(parts, demand.cells)
    newest = sorted(parts, key=lambda part: part.detail.get("began", 0.0), reverse=True)
    reason = next((part.detail["first_error"] for part in newest if part.detail.get("first_error")), None)
    if totals["errors"] and not totals["captions"]:
        raise EngineError(
            f"all captions failed ({totals['errors']:,}), the first with: {reason}; put that right and run again with "
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
    chosen = [replace(part, detail={**part.detail, "shards": shards}) for part, shards in selected]
    return Outcome(str(demand.folder), chosen, counts, detail, warnings)


def _selecting(outcome: Outcome, ingest: Manifest) -> Outcome:
    """The outcome as a manifest has it: which parts serve which shards, and where the images are that it is read for.

    What came out is decided by the rows of the parts and by the cells; how rows were put into parts does not matter.
    """
    parts = [replace(part, cells=(), detail=_place(part)) for part in outcome.parts if part.rows]
    content = digest({"cells": sorted(outcome.detail["cells"]), "rows": union(part.content for part in parts)})
    images = ingest.store.removeprefix(f"{Location.of(outcome.store).parent}/")
    return replace(outcome, parts=parts, digest=content, detail={**outcome.detail, store.IMAGES: images})


def _place(part: Part) -> dict[str, Any]:
    """Where a part's captions were asked, and which shards they serve now, if that is another matter."""
    shard, serves = part.detail["shard"], part.detail.get("shards")
    return {"shard": shard} if serves in (None, [shard]) else {"shard": shard, "shards": serves}


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
            f"quarantined: {counted(totals['quarantined'], 'caption')}, of images that crashed the engine twice on "
            "their own; look at these images (status error in the captions table) before you try them again"
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


STAGE = Stage("caption", 2, ("ingest",), CaptionConfig, run, external, preview, describe=describe)
