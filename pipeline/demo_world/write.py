"""Writes the demo world to disk: plain image files to train on, and a benchmark folder of held-out scenes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.demo_world.alt_text import alt_text
from pipeline.demo_world.benchmark import write_benchmark
from pipeline.demo_world.facts import labels
from pipeline.demo_world.language import PROMPT_IDS, canonical
from pipeline.demo_world.regions import label_png
from pipeline.demo_world.render import main_mask_png, render
from pipeline.demo_world.scene import HELDOUT_OFFSET, sample, truth
from pipeline.progress import Progress

_MARKER = "demo_world.json"
_FORM = 2  # raised when other files are written: a world of an earlier form is written anew
_SEED_STRIDE = 1 << 24  # images that one --seed may use; far below HELDOUT_OFFSET for any sensible seed


def _row(folder: Path, seed: int, masks: Path | None = None) -> dict[str, Any]:
    """Writes one image, and its label mask where there is a folder for it; returns its row of truth."""
    scene = sample(seed)
    t = truth(scene)
    name = f"{seed % _SEED_STRIDE:06d}"
    render(scene).save(folder / f"{name}.jpg", quality=92)
    if masks is not None:
        (masks / f"{name}.png").write_bytes(label_png(scene))
    queries = {f"query_{prompt}": canonical(t, prompt) for prompt in PROMPT_IDS if prompt != "everything"}
    return {
        "file": f"{name}.jpg",
        "alt_text": alt_text(t, np.random.default_rng((seed, 104729))),
        **{f"label_{label}": value for label, value in labels(t).items()},
        **queries,
        "truth": json.dumps(t),
        "mask": main_mask_png(scene),
    }


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def write_world(out: Path, train: int, heldout: int, seed: int) -> bool:
    """Writes the world into `out`; returns False where it is there already with the same arguments.

    A world with other arguments, or an unfinished one, is written anew.
    """
    arguments = {"train": train, "heldout": heldout, "seed": seed, "form": _FORM}
    marker = out / _MARKER
    if marker.exists() and json.loads(marker.read_text()) == arguments:
        return False
    marker.unlink(missing_ok=True)
    progress = Progress("demo world", train + heldout, "images")
    tables: dict[str, list[dict[str, Any]]] = {}
    for split, count, first in (("train", train, 0), ("heldout", heldout, HELDOUT_OFFSET)):
        shutil.rmtree(out / split, ignore_errors=True)
        folder = out / split / "images" if split == "heldout" else out / split
        masks = out / split / "masks" if split == "heldout" else None
        for made in (folder, masks):
            if made is not None:
                made.mkdir(parents=True)
        rows = tables.setdefault(split, [])
        for index in range(count):
            row = _row(folder, first + seed * _SEED_STRIDE + index, masks)
            rows.append(row)
            if split == "train":
                (folder / row["file"]).with_suffix(".txt").write_text(row["alt_text"] + "\n")
            progress.update()
    _write_table(tables["train"], out / "train_truth.parquet")
    _write_table(tables["heldout"], out / "heldout" / "truth.parquet")
    heldout_truths = [json.loads(row["truth"]) for row in tables["heldout"]]
    write_benchmark(out / "heldout", [row["file"] for row in tables["heldout"]], heldout_truths)
    marker.write_text(json.dumps(arguments) + "\n")
    progress.close()
    return True
