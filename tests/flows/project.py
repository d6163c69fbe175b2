"""A tiny project for tests of the whole path: a few scenes, the fake engine, towers of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.demo_world.write import write_world

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def write_project(folder: Path, *, train: int = 24, heldout: int = 12, workers: int | None = 0) -> Path:
    """Write scenes and a configuration below `folder`; returns the configuration's path.

    `workers` of training are None for the default, which is what people run.
    """
    write_world(folder / "scenes", train, heldout, seed=5)
    config: dict[str, Any] = {
        "workspace": str(folder / "workspace"),
        "ingest": {"source": {"kind": "folder", "path": str(folder / "scenes" / "train")}, "workers": 1},
        "caption": {"engine": {"kind": "fake"}, "models": ["fake"], "chunk_images": 8, "ray": {"enabled": False}},
        "train": {
            "model": TOWERS,
            "epochs": 1,
            "global_batch": 8,
            "warmup_steps": 1,
            "workers": workers,
            "threads": 1,
            "precision": "fp32",
        },
        "evaluate": {"benchmarks": [str(folder / "scenes" / "heldout")], "bootstrap_samples": 100, "workers": 1},
    }
    if workers is None:
        del config["train"]["workers"]
    path = folder / "holism.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
