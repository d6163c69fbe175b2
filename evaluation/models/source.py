"""What a text in `evaluate.models` names, and its identity. Light: whether there is work is decided without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.contents import content_digest
from pipeline.errors import ConfigError, HolismError, InputError
from pipeline.identity import digest
from pipeline.storage import Location

OPEN_CLIP, LOCAL_DIR, HUB = "open_clip:", "local-dir:", "hf-hub:"
OPEN_CLIP_CONFIG, CONFIG, IMAGE_TOWER, TEXT_TOWER = "open_clip_config.json", "config.json", "image.onnx", "text.onnx"
TRANSFORMERS = ("clip", "siglip")  # their model types
WEIGHTS = (".json", ".safetensors", ".bin", ".pt", ".txt", ".model")  # files of a folder that decide what it computes
EXPECTED = (
    f"a model folder, a checkpoint (.pt), {IMAGE_TOWER} of an export, or {OPEN_CLIP}MODEL:TAG with a tag of "
    "open_clip's or a path to weights"
)


@dataclass(frozen=True)
class Source:
    """Where a model comes from: `kind` names the file that loads it, `place` what it loads."""

    kind: Literal["holism_model", "open_clip_model", "transformers_model"]
    place: str
    weights: str | None = None  # of open_clip's models by name: a tag, or a path

    @classmethod
    def of(cls, text: str) -> Source:
        """Raises ConfigError where nothing of a known form is there."""
        try:
            return _by_name(text.removeprefix(OPEN_CLIP)) if text.startswith(OPEN_CLIP) else _by_path(text)
        except HolismError as error:
            raise type(error)(f"evaluate.models names {text!r}, {error}") from error

    @property
    def digest(self) -> str:
        """Identity: of what lies here by content, of what open_clip fetches by name, as tags do not change."""
        if self.kind == "open_clip_model" and not self.place.startswith(LOCAL_DIR):
            place = self.weights and Location.of(self.weights)
            return digest([self.place, content_digest([place]) if place and place.exists() else self.weights])
        return content_digest(self.files)

    @property
    def files(self) -> list[Location]:
        """The files that decide what the model computes."""
        place = Location.of(self.place.removeprefix(LOCAL_DIR))
        if place.name == IMAGE_TOWER:
            return [place, place.parent / TEXT_TOWER]
        if not place.is_dir():
            return [place]
        if self.kind == "holism_model":
            return [place / CONFIG, place / "model.safetensors"]
        return sorted(file for file, _ in place.files() if file.name.endswith(WEIGHTS))


def _by_name(text: str) -> Source:
    if text.startswith((LOCAL_DIR, HUB)):
        if text.startswith(LOCAL_DIR):
            _require(Location.of(text.removeprefix(LOCAL_DIR)) / OPEN_CLIP_CONFIG)
        return Source("open_clip_model", text)
    model, _, weights = text.partition(":")
    if not model or not weights:
        raise ConfigError(
            f"which says no weights; expected {OPEN_CLIP}MODEL:TAG, the tag one of open_clip's or a path"
        )
    if "/" in weights:
        _require(Location.of(weights))
    return Source("open_clip_model", model, weights)


def _by_path(text: str) -> Source:
    place = Location.of(text)
    if not place.exists():
        raise ConfigError(f"and nothing is there; expected {EXPECTED}")
    if place.name == OPEN_CLIP_CONFIG:
        return Source("open_clip_model", f"{LOCAL_DIR}{place.parent}")
    if place.name == IMAGE_TOWER:
        _require(place.parent / TEXT_TOWER)
        return Source("holism_model", place.uri)
    if not place.is_dir():
        if place.name.endswith(".pt"):
            return Source("holism_model", place.uri)
        raise ConfigError(f"a file of another kind; expected {EXPECTED}")
    return _by_folder(place)


def _by_folder(place: Location) -> Source:
    """Our own form first: an export may hold several forms of one model."""
    described: Any = {}
    if (place / CONFIG).exists():
        try:
            described = json.loads((place / CONFIG).read())
        except ValueError as error:
            raise InputError(f"whose {CONFIG} is no JSON ({error})") from error
    if "branches" in described:
        return Source("holism_model", place.uri)
    if described.get("model_type") in TRANSFORMERS:
        return Source("transformers_model", place.uri)
    if (place / OPEN_CLIP_CONFIG).exists():
        return Source("open_clip_model", f"{LOCAL_DIR}{place}")
    if (place / IMAGE_TOWER).exists():
        return _by_path((place / IMAGE_TOWER).uri)
    if kind := described.get("model_type"):
        raise ConfigError(f"a transformers model of type {kind!r}; expected {' or '.join(TRANSFORMERS)}")
    raise ConfigError(f"a folder that holds none; expected {EXPECTED}")


def _require(location: Location) -> None:
    if not location.exists():
        raise ConfigError(f"but there is no {location}")
