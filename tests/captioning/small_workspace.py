"""A small workspace with the real schemas: rendered pictures in tars, captions with planted faults.

Ingest is the real stage. Captions are written as the caption stage writes them, from the demo world's truth, so
that what curation has to find is known.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from captioning.browse.results import STAGES as SHOWN
from captioning.browse.results import Results
from captioning.curate.config import CurateConfig
from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Known
from captioning.curate.gadgets import NOTHING, make_gadgets
from captioning.curate.stage import STAGE as CURATE
from pipeline import demo_world, schemas
from pipeline.cluster.config import ClusterConfig
from pipeline.commits import CommitLog
from pipeline.identity import caption_id, digest
from pipeline.ingest import shard_images, shard_names
from pipeline.ingest.config import IngestConfig, WebdatasetSource
from pipeline.ingest.stage import STAGE as INGEST
from pipeline.manifest import Manifest
from pipeline.stage import Resolution, Stage, StageRun, execute, resolve
from pipeline.workspace import Workspace

# prompt id -> perspective, granularity, level (the paper's prompts)
PROMPTS = {
    "detail": ("detail", "paragraph", "scene"),
    "sentence": ("summary", "sentence", "scene"),
    "phrase": ("summary", "phrase", "scene"),
    "nouns": ("nouns", "word", "object"),
    "main_object": ("main_object", "sentence", "object"),
    "background": ("background", "sentence", "scene"),
    "style": ("style", "sentence", "abstract"),
}
STRANGE_KEYS = (
    "<script>alert(1)<",
    "quote\"and'tick",
    "amp&lt;",
    "a b  c",
    "été",
    "100%",
    "q?x=1#frag",
    "in/side/deep",
    "%2e%2e%2fetc",
    "-",
)
SCRIPT = "<script>alert('caption')</script>"
ALT_SCRIPT = "<img src=x onerror=alert('alt')>"
SHARD_IMAGES = 10

# (image number, prompt id) -> (text, finish_reason, what curation makes of it: a reason to drop it, or a text)
DROPPED: dict[tuple[int, str], tuple[str | None, str, str]] = {
    (0, "detail"): ("I'm sorry, but I can't help with describing this image.", "stop", "refusal"),
    (1, "detail"): ("a boat and a boat and a boat and a boat and a boat and a", "length", "repetition"),
    (4, "style"): ("As an AI language model, I have no feelings.", "stop", "meta"),
    (5, "sentence"): ("A small house in the", "length", "cut_off"),
    (7, "phrase"): ("", "stop", "empty"),
    (8, "nouns"): (None, "error", "error"),
    (9, "detail"): ("Boat.", "stop", "too_short"),
}
REPAIRED: dict[tuple[int, str], tuple[str, str, str]] = {
    (2, "detail"): ("A red boat lies on a calm sea. Behind it is a", "length", "A red boat lies on a calm sea."),
    (3, "main_object"): ("The image shows a green bell.", "stop", "A green bell."),
    (6, "background"): ('  "A wide desert\nwith dunes."  ', "stop", "A wide desert with dunes."),
    (12, "nouns"): ("1. house\n2. **night sky**\n3. star</s>", "stop", "house, night sky, star"),
    (13, "sentence"): ('```json\n{"caption": "A slow boat."}\n```', "stop", "A slow boat."),
    (10, "detail"): (f"A page says {SCRIPT} on a wide board.", "stop", f"A page says {SCRIPT} on a wide board."),
}
PLANTED = DROPPED | REPAIRED


def write_tars(folder: Path, images: int = 30, shard_images: int = SHARD_IMAGES) -> None:
    """Tars of rendered pictures; the first ten have strange keys, the last picture is cut short."""
    folder.mkdir(parents=True)
    for start in range(0, images, shard_images):
        with tarfile.open(folder / f"part-{start // shard_images:03}.tar", "w") as tar:
            for i in range(start, min(start + shard_images, images)):
                scene = demo_world.sample(i)
                picture = io.BytesIO()
                demo_world.render(scene).save(picture, "PNG" if i % 2 else "JPEG")
                data = picture.getvalue()[: 400 if i == images - 1 else None]
                key = STRANGE_KEYS[i] if i < len(STRANGE_KEYS) else f"picture_{i:04}"
                _add(tar, f"{key}.{'png' if i % 2 else 'jpg'}", data)
                alt_text = ALT_SCRIPT if i == 0 else f"{demo_world.labels(demo_world.truth(scene))['object']} for sale"
                if i != 11:  # one image has no alt text
                    _add(tar, f"{key}.txt", alt_text.encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def caption_rows(number: int, image: dict[str, Any], model: str = "demo") -> list[dict[str, Any]]:
    """The captions of one image, as the caption stage writes them."""
    truth = demo_world.truth(demo_world.sample(number))
    rng = np.random.default_rng(number)
    rows = []
    for prompt, (perspective, granularity, level) in PROMPTS.items():
        text: str | None = demo_world.answer(truth, prompt, rng)
        finish = "stop"
        if (number, prompt) in PLANTED:
            text, finish, _ = PLANTED[number, prompt]
        failed = text is None
        rows.append(
            {
                "caption_id": caption_id(image["image_id"], prompt, model, "r1", {}, None),
                "shard": image["shard"],
                "key": image["key"],
                "image_id": image["image_id"],
                "cell": f"{prompt}-{model}",
                "perspective": perspective,
                "granularity": granularity,
                "level": level,
                "prompt_id": prompt,
                "model": model,
                "revision": "r1",
                "engine": "test",
                "sampling": "{}",
                "text": text,
                "prompt_tokens": 70,
                "cached_tokens": 64,
                "output_tokens": 0 if failed else 12,
                "finish_reason": finish,
                "status": "error" if failed else "ok",
                "error": "quarantined: crashed the engine twice on its own" if failed else None,
            }
        )
    return rows


def number_of(image: dict[str, Any]) -> int:
    """Which scene an image shows, by its key."""
    for number, strange in enumerate(STRANGE_KEYS):
        if strange.startswith(image["key"]):  # ingest cuts a name that is endless
            return number
    return int(image["key"].removeprefix("picture_"))


def ingest(root: Path, images: int = 30, shard_images: int = SHARD_IMAGES) -> Workspace:
    """A workspace whose images are ingested."""
    write_tars(root / "tars", images, shard_images)
    workspace = Workspace(str(root / "ws"))
    config = IngestConfig(source=WebdatasetSource(path=str(root / "tars")), workers=1)
    execute(resolve([INGEST], {"ingest": config}, workspace)["ingest"], workspace)
    return workspace


def caption(workspace: Workspace, shards: Iterable[str] | None = None, full_stop: str = ".") -> Manifest:
    """Commit captions of the (given) shards in chunks of four images, and their manifest.

    With another `full_stop` texts differ under the same caption_id, as when a row is asked for again.
    """
    images = workspace.manifests("ingest")[0]
    log = CommitLog(workspace.folder("caption"))
    cells = [f"{prompt}-demo" for prompt in PROMPTS]
    parts = []
    for shard in shards if shards is not None else shard_names(images):
        usable = [row for row in shard_images(images, shard).to_pylist() if row["status"] == "ok"]
        for start in range(0, len(usable), 4):
            rows = [row for image in usable[start : start + 4] for row in caption_rows(number_of(image), image)]
            rows = [{**row, "text": row["text"] and row["text"].replace(".", full_stop)} for row in rows]
            data = schemas.encode(schemas.table(schemas.CAPTIONS, rows), schemas.CAPTIONS)
            name = f"captions/{shard}/{start:08}-{digest(cells)[:12]}.parquet"
            detail = {"shard": shard}
            parts.append(log.commit(name, data, rows=len(rows), cells=cells, detail=detail))
    manifest = Manifest(
        stage="caption",
        fingerprint=digest([part.digest for part in parts]),
        version=1,
        config={},
        inputs={"ingest": images.digest},
        store=log.folder.uri,
        parts=tuple(parts),
        detail={
            "cells": {
                f"{prompt}-demo": {"prompt": prompt, "perspective": perspective, "ends": "sentence", "model": "demo"}
                for prompt, (perspective, _, _) in PROMPTS.items()
            },
            "images": images.store.removeprefix(f"{workspace.root}/"),
        },
        created_at=datetime.now(UTC).isoformat("T", "milliseconds"),
    )
    workspace.save(manifest)
    return manifest


def newest(workspace: Workspace) -> Results:
    """What the browser is to show where there is no configuration to ask: the newest result of each stage."""
    manifests_of = {stage: manifests[0] for stage in SHOWN if (manifests := workspace.manifests(stage))}
    return Results(manifests_of, tuple(f"Nothing of {stage}." for stage in SHOWN if stage not in manifests_of))


def curate(workspace: Workspace, config: CurateConfig | None = None, cluster: ClusterConfig | None = None) -> Manifest:
    """Run the real curate stage on what is there."""
    return execute(_curation(CURATE, workspace, config or CurateConfig()), workspace, cluster=cluster)


def _curation(stage: Stage, workspace: Workspace, config: CurateConfig) -> Resolution:
    inputs = {name: workspace.manifests(name)[0] for name in stage.upstream}
    identity = digest([{name: manifest.digest for name, manifest in inputs.items()}, config.model_dump()])
    return Resolution(stage, config, inputs, (), identity, None)


def curate_run(workspace: Workspace, config: CurateConfig | None = None) -> StageRun:
    """What the curate stage is given, to call its `run` directly."""
    resolution = _curation(CURATE, workspace, config or CurateConfig())
    assert resolution.fingerprint is not None
    return StageRun(resolution.config, resolution.inputs, workspace, resolution.fingerprint)


def both_passes(config: CurateConfig, known: Known = NOTHING) -> list[Gadget]:
    """The gadgets of texts and of images, for captions that are few enough to be judged in one go."""
    return [*make_gadgets("texts", config, known), *make_gadgets("images", config, known)]


def draft_of(*rows: dict[str, Any], ngram: int = 2) -> Draft:
    """A draft of one image; rows name only what matters to the test."""
    base = {"key": "k", "perspective": "detail", "granularity": "sentence", "level": "scene", "finish_reason": "stop"}
    full = [{**base, "status": "ok", "caption_id": f"{i:04}", **row} for i, row in enumerate(rows)]
    return Draft({name: [row[name] for row in full] for name in full[0]}, ngram=ngram)


def reasons(draft: Draft) -> list[str | None]:
    """The reason of every row."""
    return [verdict[1] if verdict else None for verdict in draft.verdicts]
