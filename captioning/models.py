"""Which model is meant, where it lies, and which revision it is.

A folder's revision comes from its content, so that retrained weights under the same path are another model. Big
weight files are sampled: a fingerprint of 16 GB must not take a minute each time nothing is to do.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from captioning.config import DEMO_VLM, EngineConfig, ModelReference
from pipeline.contents import content_digest
from pipeline.errors import EngineError
from pipeline.storage import Location

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")


@dataclass(frozen=True)
class Model:
    """A model as the captions table knows it (name, revision) and as an engine loads it (source)."""

    name: str
    revision: str
    source: str
    is_folder: bool


def resolve(reference: ModelReference, engine: EngineConfig) -> Model:
    """Find a model. Raises `EngineError` if it is a folder that cannot be a model."""
    if engine.kind == "fake":  # never to be taken for the model whose name it bears
        return Model(f"fake:{reference.name or reference.model}", reference.revision or "0", reference.model, False)
    if engine.kind == "openai":  # a name of the server's, which says nothing of revisions
        return Model(reference.name or reference.model, reference.revision or "served", reference.model, False)
    folder = _folder(reference.model)
    if folder is None:
        return Model(reference.name or reference.model, reference.revision or "main", reference.model, False)
    check(folder)
    name = reference.name or (DEMO_VLM if reference.model == DEMO_VLM else folder.name)
    return Model(name, reference.revision or _content_digest(folder), str(folder), True)


def _folder(model: str) -> Path | None:
    """The folder that is meant, or None for a hub id."""
    if model == DEMO_VLM:
        return Path(__file__).parent / "demo_vlm" / "weights"
    path = Path(model).expanduser()
    return None if HUB_ID.match(model) and not path.exists() and model[0] not in ".~" else path.absolute()


def check(folder: Path) -> None:
    """Refuse quickly what no engine could load, in one sentence that says what was expected."""
    expected = "expected a Hugging Face model folder with config.json, *.safetensors and a tokenizer"
    if not folder.is_dir():
        found = "a file" if folder.exists() else "not there"
        raise EngineError(f"the model folder {folder} is {found}; {expected}")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"the model folder {folder} has no readable config.json ({error}); {expected}") from error
    weights = [file for file in folder.iterdir() if file.suffix in WEIGHTS]
    if not weights:
        raise EngineError(f"the model folder {folder} holds no weights; {expected}")
    if empty := [file.name for file in weights if file.stat().st_size == 0]:
        raise EngineError(f"the model folder {folder} holds the empty file {empty[0]}; copy the weights again")
    if not isinstance(config, dict) or "model_type" not in config:
        raise EngineError(f"{folder / 'config.json'} names no model_type; {expected}")


def _content_digest(folder: Path) -> str:
    """Of all files but those that only describe it."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix not in {".md", ".txt"})
    return content_digest(Location.of(path) for path in files)
