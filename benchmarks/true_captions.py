"""Captions of rendered scenes by their truth, for benchmarks that need bundles and no model's answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.demo_world import answer
from training.config import RunConfig


def captions(row: dict[str, Any], config: RunConfig, number: int) -> list[dict[str, Any]]:
    """One for each slot, as bundles have them, of a row of the scenes' truths; worded by the scene's number."""
    truth, rng = json.loads(row["truth"]), np.random.default_rng(number)
    blank = {"caption_id": None, "source": "caption", "level": None, "weight": 1.0, "n_tokens": None}
    return [
        {
            **blank,
            "perspective": slot.perspective,
            "granularity": slot.granularity or "sentence",
            "text": row["alt_text"] if slot.name == "alt_text" else answer(truth, slot.name, rng),
        }
        for slot in config.slots
    ]
