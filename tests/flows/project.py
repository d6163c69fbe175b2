"""A tiny project for tests of the whole path: a few scenes, the fake engine, towers of a few thousand weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.config import merge
from pipeline.demo_world.write import write_world

TOWERS = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


# What makes most tests quick. Tests of what users get leave it out: loader processes, Ray, all threads there are.
QUICK: dict[str, dict[str, Any]] = {
    "ingest": {"workers": 1},
    "caption": {"ray": {"enabled": False}},
    "train": {"workers": 0, "threads": 1},
    "evaluate": {"workers": 1},
}


def write_project(folder: Path, *, train: int = 24, heldout: int = 12, quick: bool = True) -> Path:
    """Write scenes and a configuration below `folder`; returns the configuration's path.

    Without `quick` all operational settings have their defaults, as they come to users.
    """
    write_world(folder / "scenes", train, heldout, seed=5)
    config: dict[str, Any] = {
        "workspace": str(folder / "workspace"),
        "ingest": {"source": {"kind": "folder", "path": str(folder / "scenes" / "train")}},
        "caption": {"engine": {"kind": "fake"}, "models": ["fake"], "chunk_images": 8},
        "train": {
            "model": TOWERS,
            "epochs": 1,
            "global_batch": 8,
            "warmup_steps": 1,
            "precision": "fp32",
        },
        "evaluate": {"benchmarks": [str(folder / "scenes" / "heldout")], "bootstrap_samples": 100},
    }
    if quick:
        config = {name: merge(value, QUICK[name]) if name in QUICK else value for name, value in config.items()}
    path = folder / "holism.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
