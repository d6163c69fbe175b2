"""What makes a caption good, as a number between 0 and 1: what MMR and DPP weigh against likeness.

uniform  1 for all
length   how near a caption's words are to the middle of its granularity's limits (the geometric mean), by ratio: half
         or twice as many words are 0.5
ground   exp(−d / 0.1), where d is how far the caption's image-text score (a cosine) lies below the image's best one
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from captioning.curate.draft import Draft
from captioning.curate.measures.image_text import SCORE
from captioning.curate.text_rules.words import WordLimits

COSINE_SCALE = 0.1
LOWEST = 0.01  # at 0 a determinantal point process would never take a caption, however different it is


def quality(
    kind: Literal["uniform", "length", "ground"],
    draft: Draft,
    rows_BM: np.ndarray,
    open_BM: np.ndarray,
    limits: Mapping[str, WordLimits],
) -> np.ndarray:
    """The qualities of open rows, (B, M), `LOWEST` to 1. Without limits or a score a caption counts as good."""
    found_BM = np.ones(rows_BM.shape)
    rows = rows_BM[open_BM].tolist()
    if kind == "length":
        usual = {name: (limit.min * limit.max) ** 0.5 for name, limit in limits.items()}
        granularity = draft.columns["granularity"]
        words = np.array([len(draft.words(row)) or 1 for row in rows], np.float64)
        ratio = words / np.array([usual.get(granularity[row], 0) or np.nan for row in rows])
        found_BM[open_BM] = np.fmin(ratio, 1 / ratio)
    elif kind == "ground":
        score_BM = np.full(rows_BM.shape, np.nan)
        score_BM[open_BM] = [draft.scores[row].get(SCORE, np.nan) for row in rows]
        best_BM = np.fmax.reduce(score_BM, axis=1, keepdims=True)
        found_BM = np.exp((score_BM - best_BM) / COSINE_SCALE)
    return np.clip(np.nan_to_num(found_BM, nan=1.0), LOWEST, 1.0)
