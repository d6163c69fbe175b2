"""Which model is meant, where it lies, and which revision it is.

A folder's revision comes from its content, so that retrained weights under the same path are another model. Big
weight files are sampled: a fingerprint of 16 GB must not take a minute each time nothing is to do. A hub's revision is
the commit that a branch or tag stands for (`hub.py`), so that an answer is known by what was asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from captioning import hub
from captioning.config import DEMO_VLM, EngineConfig, ModelReference
from pipeline.contents import content_digest
from pipeline.errors import EngineError
from pipeline.storage import Location

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
DESCRIPTIONS = ("README", "LICENSE", "LICENCE", "NOTICE", "USE_POLICY")  # files that begin so say nothing to a model
FAKE = "fake:"  # what names of models that the fake engine plays begin with
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
        name = (reference.name or reference.model).removeprefix(FAKE)
        return Model(f"{FAKE}{name}", reference.revision or "0", reference.model, False)
    if engine.kind == "openai":  # a name of the server's, which says nothing of revisions
        return Model(reference.name or reference.model, reference.revision or "served", reference.model, False)
    folder = _folder(reference.model)
    if folder is None:
        revision = hub.commit_of(reference.model, reference.revision or hub.MAIN)
        return Model(reference.name or reference.model, revision, reference.model, False)
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
        state = "a file" if folder.exists() else "not there"
        raise EngineError(f"the model folder {folder} is {state}; {expected}")
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


def on_worker(reference: ModelReference, engine: EngineConfig, planned: Iterable[Model]) -> Model:
    """The model on a worker's machine: a folder is looked for there, a hub's commit is the one that was planned."""
    name = reference.name or reference.model
    return next((model for model in planned if model.name == name and not model.is_folder), None) or resolve(
        reference, engine
    )


def _content_digest(folder: Path) -> str:
    """Of all files, in subfolders too, but those that only describe the model or that tools left there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _matters(path.relative_to(folder)))
    return content_digest((Location.of(path) for path in files), Location.of(folder))


def _matters(path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    return not hidden and path.suffix != ".md" and not path.name.upper().startswith(DESCRIPTIONS)
