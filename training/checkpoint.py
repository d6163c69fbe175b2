"""What is written of a model, and how it comes back.

A finished run's `model/` folder holds `config.json` (towers, slots, branches, preprocessing, recipe) and
`model.safetensors`. The first has the digest of the second and one of itself, so damage is noticed wherever a model is
opened, copies and exports included. A checkpoint is one file, `checkpoints/step-N.pt`, with the same description,
weights, optimizer, random state and position. Both say everything needed to load them: a wrong H cannot be given,
because none is asked.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import open_clip
import safetensors.torch
import torch

from pipeline.config import semantic
from pipeline.errors import InputError, StoreError
from pipeline.identity import digest
from pipeline.storage import Location
from training.config import BranchOptions, RunConfig
from training.model import HolisticCLIP, make_tokenizer
from training.preprocess import make_preprocess, preprocessing
from training.towers import resolve_architecture
from training.weights import weights_name

IN_TRAINING_ALONE = ("token_head.",)  # weights that checkpoints have and models that are served do not
FORMAT = 2
UNSEALED = 1  # the format before, whose files have no digests
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"


class DamagedError(StoreError):
    """A file is not what was written."""


def new_model(config: RunConfig) -> HolisticCLIP:
    """The untrained model of a recipe."""
    architecture = resolve_architecture(config.model, config.context_length)
    return HolisticCLIP(architecture, config.branch_names, config.branch_options, config.has_text_pooling)


def describe(model: HolisticCLIP, config: RunConfig, step: int) -> dict[str, Any]:
    """Everything but the tensors, as plain JSON data."""
    return {
        "format": FORMAT,
        "architecture": model.architecture,
        "branches": list(model.slots),
        "slots": [slot.model_dump() for slot in config.slots],
        "branch_options": asdict(model.options),
        "text_pooling": model.text_pooling is not None,
        "preprocess": preprocessing(model.visual.image_size[0], config.image_mean, config.image_std),
        "recipe": {**semantic(config), "warm_start": weights_name(config.warm_start)},
        "step": step,
    }


def model_files(model: HolisticCLIP, config: RunConfig, step: int) -> dict[str, bytes]:
    """The files of a `model/` folder, weights last."""
    state = {name: value.detach().cpu().contiguous() for name, value in served(model.state_dict()).items()}
    weights = safetensors.torch.save(state, metadata={"format": "pt"})
    description = {**describe(model, config, step), "weights": digest(weights)}
    sealed = {**description, "checksum": digest(description)}
    return {CONFIG_FILE: json.dumps(sealed, indent=1).encode(), WEIGHTS_FILE: weights}


def served(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights without those that are there for training alone."""
    return {name: value for name, value in state.items() if not name.startswith(IN_TRAINING_ALONE)}


def load(path: str | Location, device: str = "cpu") -> tuple[HolisticCLIP, Any, open_clip.SimpleTokenizer]:
    """(model, preprocess, tokenizer) of a finished run's model folder or of a training checkpoint (.pt).

    The model is in eval mode; preprocess maps a PIL image to (3, S, S); the tokenizer maps texts to (T, context).
    """
    location = Location.of(path)
    if location.name.endswith(".pt"):
        state = read_checkpoint(location)
        description, weights = state["description"], state["model"]
    else:
        description, weights = _read_model_folder(location)
    try:
        architecture = description["architecture"]
        pooling = description.get("text_pooling", False)
        model = HolisticCLIP(architecture, description["branches"], branch_options(description), pooling)
        model.load_state_dict(served(weights))
        preprocess = make_preprocess(description["preprocess"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _damaged(location, str(error).splitlines()[0]) from error
    return model.to(device).eval(), preprocess, make_tokenizer(architecture)


def _read_model_folder(folder: Location) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
    try:
        text, data = (folder / CONFIG_FILE).read(), (folder / WEIGHTS_FILE).read()
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} is not a model folder (it lacks {CONFIG_FILE} or {WEIGHTS_FILE}); "
            "name WS/train/RUN/model, or a checkpoint file step-N.pt"
        ) from error
    try:
        description = read_description(text, data)
        return _of_this_format(folder, description), safetensors.torch.load(data)
    except (ValueError, safetensors.SafetensorError) as error:
        raise _damaged(folder, str(error)) from error


def read_description(text: bytes, weights: bytes) -> dict[str, Any]:
    """What a `config.json` holds. Raises ValueError where it, or the weights beside it, are not what was written."""
    description = json.loads(text)
    if not isinstance(description, dict):
        raise ValueError(f"{CONFIG_FILE} holds no mapping")  # noqa: TRY004 (damage, not a caller's mistake)
    if description.get("format") != UNSEALED:
        if description.pop("checksum", None) != digest(description):
            raise ValueError(f"{CONFIG_FILE} does not have the checksum it names")
        if description["weights"] != digest(weights):
            raise ValueError(f"{WEIGHTS_FILE} does not have the digest that {CONFIG_FILE} names")
    return description


def _damaged(place: Location, reason: str) -> StoreError:
    return StoreError(
        f"the model in {place} is damaged ({reason}); copy it again, or train it again: "
        "holism train CONFIG --retry-failed"
    )


def branch_options(description: Mapping[str, Any]) -> BranchOptions:
    """Models written before there were kinds have class tokens, and say two things of them."""
    if "branch_options" in description:
        return BranchOptions(**description["branch_options"])
    return BranchOptions(isolation=description["isolation"], projection=description["projection"])


def read_checkpoint(file: Location) -> dict[str, Any]:
    try:
        data = file.read()
        _require_checksums(data)
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no checkpoint at {file}") from error
    except Exception as error:  # torch raises whatever its unpickler stumbles over
        raise DamagedError(f"the checkpoint {file} is damaged ({str(error).splitlines()[0]})") from error
    _of_this_format(file, state.get("description", {}))
    return state


def _require_checksums(data: bytes) -> None:
    """torch writes a checksum for each tensor, and does not look at them when it reads."""
    with zipfile.ZipFile(io.BytesIO(data)) as content:
        if damaged := content.testzip():
            raise ValueError(f"{damaged} does not have the checksum it names")


def _of_this_format(place: Location, description: dict[str, Any]) -> dict[str, Any]:
    if description.get("format") not in (FORMAT, UNSEALED):
        raise StoreError(f"{place} has model format {description.get('format')}, this version reads format {FORMAT}")
    return description
