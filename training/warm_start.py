"""Starting from weights that exist: an open_clip checkpoint, a Holism model, or a transformers CLIP's image tower.

Which branch starts from which: a branch takes the checkpoint's branch of its own name; the others take the
checkpoint's branches that are left, in order, and when none is left all of them again from the first. Whoever takes a
branch first has it as it is, the next ones with a little noise, or they would never part. A plain CLIP is a checkpoint
of one branch without a name, so its class token (or MLP layer) starts all.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from open_clip.factory import load_state_dict
from open_clip.model import resize_pos_embed
from torch import Tensor

from pipeline.errors import ConfigError
from training.checkpoint import CONFIG_FILE, WEIGHTS_FILE, branch_options, read_description, served
from training.config import BranchOptions, RunConfig
from training.model import HolisticCLIP
from training.positions import fit_text_positions
from training.pretrained import fetch, first_line, require_same_normalisation
from training.transformers_tower import has_transformers_tower, tower_of_transformers
from training.weights import pretrained_tag, weights_file

# Noise of a copied branch, relative to the spread of what it copies. A class token meets it once, at the first block.
COPY_NOISE = 0.1


@dataclass(frozen=True)
class _Source:
    """Weights under our names, and what is known of their branches and of what they were trained with."""

    state: dict[str, Tensor]
    branches: tuple[str | None, ...] = (None,)
    options: BranchOptions | None = None  # None: a plain CLIP
    tower_only: bool = False
    quick_gelu: bool | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def warm_start(model: HolisticCLIP, source: str | Path, recipe: RunConfig | None = None) -> None:
    """Loads weights into the model: a checkpoint file, a folder that holds one, or `open_clip:TAG`.

    A tag needs the recipe, whose model it must be for. With a recipe, its normalisation must be that of the weights,
    where a file beside them tells. Position tables are fitted to this model's image size and
    context length. Raises ConfigError where there is no checkpoint, or its parameters are not this architecture's.
    """
    tag = pretrained_tag(source)
    file = weights_file(source) if tag is None else fetch(tag, recipe or RunConfig())
    weights = _read(file)
    if weights.options and len(weights.branches) > 1 and (obstacle := _obstacle(weights.options, model)):
        raise ConfigError(f"train.warm_start: the branches of {source} {obstacle}")
    if weights.quick_gelu not in (None, bool(model.architecture.get("quick_gelu"))):
        raise ConfigError(
            f"train.warm_start: the weights in {source} were trained with another GELU than train.model has; name the "
            f"model {'with' if weights.quick_gelu else 'without'} -quickgelu, or set its quick_gelu"
        )
    if recipe:
        require_same_normalisation(f"the weights in {source}", weights.preprocess, recipe)
    state = {key: value.float() for key, value in served(weights.state).items()}
    if model.text_pooling is None:
        state = {key: value for key, value in state.items() if not key.startswith("text_pooling.")}
    _branch(state, model, weights.branches)
    try:
        _fit_shapes(state, model)
    except RuntimeError as error:
        raise _misfit(source, "its image positions are not a class token's and a square grid's") from error
    new = {key for key in model.state_dict() if _may_be_new(key, weights)}
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise _misfit(source, str(error).splitlines()[1].strip()) from error
    odd = [*result.unexpected_keys, *(key for key in result.missing_keys if key not in new)]
    if odd:
        raise _misfit(source, f"{odd[0]} is not in both")


def branch_sources(targets: Sequence[str], sources: Sequence[str | None]) -> list[int]:
    """The checkpoint's branch that each branch starts from: by name first, then in order (see the module)."""
    taken = [sources.index(name) if name in sources else None for name in targets]
    left = [index for index in range(len(sources)) if index not in taken]
    in_order = iter(left + list(range(len(sources))) * len(targets))
    return [next(in_order) if index is None else index for index in taken]


def _obstacle(have: BranchOptions, model: HolisticCLIP) -> str | None:
    """Why several branches cannot become the model's; None where they can."""
    want = model.options
    if len(model.slots) == 1:
        lone_query = have.kind == "query"  # it joins in the last blocks, where plain CLIP has nothing to put it
        return "are queries, and one query is no plain CLIP; set train.branches to 2 or more" if lone_query else None
    if have.kind != want.kind:
        return f"are of kind {have.kind}, train.branch_kind is {want.kind}; set it to {have.kind}"
    if have.projection == "branch" and want.projection == "shared":
        return "have a projection each, train.projection is shared; set it to branch"
    if have.kind == "mlp" and have.blocks > want.blocks:
        return f"have layers in {have.blocks} blocks, train.branch_blocks is {want.blocks}; set it to {have.blocks}"
    return None


def _branch(state: dict[str, Tensor], model: HolisticCLIP, names: Sequence[str | None]) -> None:
    """Gives each parameter that has a row per branch its rows; a model of one branch has its row alone."""
    rows = branch_sources(model.slots, names)
    copies = [index in rows[:place] for place, index in enumerate(rows)]
    for name, parameter in model.visual.named_parameters():
        value = state.get(f"visual.{name}")
        if value is None:
            continue
        if name in model.visual.branch_parameters:
            value = value if value.ndim == parameter.ndim else value[None]
            value = value[rows] if len(value) == len(names) else value.expand(len(rows), *value.shape[1:]).clone()
            if name in model.visual.noised_parameters:
                value[copies] += COPY_NOISE * value.std() * torch.randn_like(value[copies])
        elif value.ndim == parameter.ndim + 1 and len(value) == len(names):
            value = value[rows[0]] if len(rows) == 1 else value
        elif name == "class_embedding" and value.ndim == 1:
            value = value[None]
        state[f"visual.{name}"] = value


def _fit_shapes(state: dict[str, Tensor], model: HolisticCLIP) -> None:
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    resize_pos_embed(state, model)
    if "positional_embedding" in state:
        state["positional_embedding"] = fit_text_positions(state["positional_embedding"], model.context_length)


def _may_be_new(key: str, weights: _Source) -> bool:
    """Whether a parameter may start as it was made: what a tower alone, or a model of one branch, cannot have."""
    if key.startswith("text_pooling.") or (key == "visual.branch_queries" and len(weights.branches) == 1):
        return True
    return weights.tower_only and (key == "visual.proj" or not key.startswith("visual."))


def _read(file: Path) -> _Source:
    """A checkpoint's weights, and the names of its branches where it is one of ours."""
    if file.suffix == ".pt" and (ours := _training_checkpoint(file)):
        return ours
    try:
        state = dict(load_state_dict(str(file)))
    except Exception as error:  # torch raises whatever its unpickler stumbles over
        raise _no_weights(file, first_line(error)) from error
    if strange := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise _no_weights(file, f"its entry {strange[0]!r} is no tensor")
    if has_transformers_tower(state):
        return _Source(tower_of_transformers(state), tower_only=True)
    if description := _json_beside(file, CONFIG_FILE, "branches"):
        if file.name == WEIGHTS_FILE:
            _require_undamaged(file)
        return _ours(state, description)
    described = _json_beside(file, "open_clip_config.json", "model_cfg")
    if not described:
        return _Source(state)
    quick_gelu = bool(described["model_cfg"].get("quick_gelu"))
    return _Source(state, quick_gelu=quick_gelu, preprocess=described.get("preprocess_cfg", {}))


def _require_undamaged(file: Path) -> None:
    try:
        read_description(file.with_name(CONFIG_FILE).read_bytes(), file.read_bytes())
    except ValueError as error:
        raise _no_weights(file, str(error)) from error


def _ours(state: Mapping[str, Tensor], description: Mapping[str, Any]) -> _Source:
    return _Source(
        dict(state),
        tuple(description["branches"]),
        branch_options(description),
        quick_gelu=bool(description["architecture"].get("quick_gelu")),
        preprocess=description["preprocess"],
    )


def _training_checkpoint(file: Path) -> _Source | None:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # open_clip's reader, which comes next, says what is wrong with it
        return None
    ours = isinstance(content, Mapping) and {"model", "description"} <= content.keys()
    return _ours(content["model"], content["description"]) if ours else None


def _json_beside(file: Path, name: str, key: str) -> dict[str, Any] | None:
    """What a file beside the weights says of them; None where there is none, or none with the key."""
    beside = file.with_name(name)
    if not beside.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(beside.read_text(encoding="utf8"))
    except ValueError as error:
        raise ConfigError(f"train.warm_start: {beside} is no JSON ({error}); copy the model again") from error
    return content if key in content else None


def _no_weights(file: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"train.warm_start: {file} cannot be read as weights ({reason}); expected safetensors or a state dict saved "
        "by torch.save"
    )


def _misfit(source: str | Path, reason: str) -> ConfigError:
    return ConfigError(
        f"train.warm_start: {source} does not fit train.model ({reason}); spell out the architecture it was trained "
        "with"
    )
