"""The caption stage: images in, many captions of every image out.

What is missing is found first, from records alone. A model and its engine are only looked for if there is work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from captioning import cells as planning
from captioning import prompts, ray_job, store
from captioning.cells import Cell
from captioning.config import CaptionConfig
from captioning.models import resolve
from captioning.store import Shard, WorkItem
from captioning.worker import WorkerSpec
from pipeline.commits import CommitLog, Part
from pipeline.errors import EngineError
from pipeline.identity import digest
from pipeline.progress import Progress
from pipeline.stage import Outcome, Stage, StageRun


def run(stage_run: StageRun) -> Outcome:
    """Write the captions that are missing (or failed, if asked to) and select those of this configuration."""
    started = time.monotonic()
    config: CaptionConfig = stage_run.config
    chosen = prompts.load(config.prompts.set).select(config.prompts.only)
    models = [resolve(reference, config.engine) for reference in config.models]
    cells = planning.plan(config, chosen, models)
    folder = stage_run.workspace.folder("caption")
    shards = store.shards(stage_run.inputs["ingest"])
    parts = _selected(CommitLog(folder).parts(), shards, cells)

    made = 0
    progress: Progress | None = None
    for reference, model in zip(config.models, models, strict=True):
        own = [cell for cell in cells if cell.model == model]
        items = _work(shards, parts, own, config.chunk_images, stage_run.retry_failed)
        if not items:
            continue
        progress = progress or _progress(shards, parts, cells, stage_run.retry_failed)
        print(f"caption: {len(items):,} chunks for {model.name}; an engine takes 10 to 90 s to start", file=sys.stderr)
        for part in ray_job.run(WorkerSpec(folder, tuple(own), reference, config.engine), items, config):
            before = _rows(parts.get(part.name), own) - _errors(parts.get(part.name), own)
            parts[part.name] = part
            made += (fresh := _rows(part, own) - before)
            progress.update(fresh)
    if progress is not None:
        progress.close()
    return _outcome(str(folder), parts, cells, made, time.monotonic() - started)


def _selected(parts: Mapping[str, Part], shards: Sequence[Shard], cells: Sequence[Cell]) -> dict[str, Part]:
    """The committed parts that hold something of these shards and cells."""
    ids = {cell.id for cell in cells}
    folders = {shard.folder for shard in shards}
    return {name: part for name, part in parts.items() if name.rsplit("/", 1)[0] in folders and ids & set(part.cells)}


def _work(
    shards: Sequence[Shard], parts: Mapping[str, Part], cells: Sequence[Cell], chunk_images: int, retry_failed: bool
) -> list[WorkItem]:
    items: list[WorkItem] = []
    by_folder: dict[str, list[Part]] = {}
    for part in sorted(parts.values(), key=lambda part: part.name):
        by_folder.setdefault(part.name.rsplit("/", 1)[0], []).append(part)
    for shard in shards:
        committed = by_folder.get(shard.folder, [])
        items += store.missing(shard, committed, cells, chunk_images)
        if retry_failed:
            items += store.failed(shard, committed, cells)
    return items


def _progress(
    shards: Sequence[Shard], parts: Mapping[str, Part], cells: Sequence[Cell], retry_failed: bool
) -> Progress:
    total = sum(shard.rows - shard.errors for shard in shards) * len(cells)
    done = sum(_rows(part, cells) - (_errors(part, cells) if retry_failed else 0) for part in parts.values())
    return Progress("caption", total, "captions", done=done)


def _rows(part: Part | None, cells: Iterable[Cell]) -> int:
    counts = store.figures_of(part, [cell.id for cell in cells]).values() if part else ()
    return sum(count["captions"] + count["errors"] for count in counts)


def _errors(part: Part | None, cells: Iterable[Cell]) -> int:
    counts = store.figures_of(part, [cell.id for cell in cells]).values() if part else ()
    return sum(count["errors"] for count in counts)


def _outcome(folder: str, parts: Mapping[str, Part], cells: Sequence[Cell], made: int, seconds: float) -> Outcome:
    ids = [cell.id for cell in cells]
    totals = dict.fromkeys(store.COUNTED, 0)
    perspectives: dict[str, dict[str, int]] = {}
    for part in parts.values():
        for cell, count in store.figures_of(part, ids).items():
            prompt = next(known.prompt for known in cells if known.id == cell)
            own = perspectives.setdefault(prompt.perspective, {"captions": 0, "errors": 0})
            for name, value in count.items():
                totals[name] += value
                if name in own:
                    own[name] += value
    reason = next((part.detail["first_error"] for part in parts.values() if _errors(part, cells)), None)
    if totals["errors"] and not totals["captions"]:
        raise EngineError(
            f"all {totals['errors']:,} captions failed, the first with: {reason}; put that right and run again with "
            "--retry-failed"
        )
    counts: dict[str, Any] = {
        **totals,
        "new_captions": made,
        "seconds": round(seconds, 1),
        "captions_per_second": round(made / seconds, 1) if made else 0.0,
        "cached_share": round(totals["cached_tokens"] / max(1, totals["prompt_tokens"]), 3),
        "perspectives": perspectives,
    }
    asked = totals["captions"] + totals["errors"]
    warning = f"{totals['errors']:,} of {asked:,} captions failed, the first: {reason}; run again with --retry-failed"
    warnings = [warning] if totals["errors"] else []
    detail = {"cells": {cell.id: cell.describe() for cell in cells}}
    return Outcome(folder, [parts[name] for name in sorted(parts)], counts, detail, warnings)


def external(config: CaptionConfig) -> dict[str, str]:
    """Digests of the prompts and models that the configuration only names."""
    chosen = prompts.load(config.prompts.set).select(config.prompts.only)
    digests = {"prompts": digest([prompt.model_dump() for prompt in chosen])}
    return digests | {
        f"model:{reference.model}": resolve(reference, config.engine).revision for reference in config.models
    }


STAGE = Stage("caption", 1, ("ingest",), CaptionConfig, run, external)
