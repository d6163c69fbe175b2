"""Starting from weights that exist: a whole open_clip checkpoint, or the image tower of a transformers CLIP.

The second kind is found in CLIP vision models and in most vision-language models, under some prefix. Only the image
tower starts from it; the text tower and the projections are new.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from open_clip.factory import load_state_dict
from open_clip.model import resize_pos_embed, resize_text_pos_embed
from torch import Tensor

from pipeline.errors import ConfigError
from training.branches import copy_class_token
from training.model import HolisticCLIP
from training.weights import weights_file

_TOWER_MARK = "embeddings.class_embedding"  # where a transformers CLIP vision tower shows
_RENAMED = (
    (r"^embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^embeddings\.patch_embedding\.weight$", "visual.conv1.weight"),
    (r"^embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^pre_layrnorm\.", "visual.ln_pre."),  # transformers' own spelling
    (r"^post_layernorm\.", "visual.ln_post."),
    (r"^encoder\.layers\.", "visual.transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def warm_start(model: HolisticCLIP, path: str | Path) -> None:
    """Loads a checkpoint file, or the weights in a folder; its class token starts every branch.

    Position tables are resampled to this model's image size and context length. Raises ConfigError where there is no
    checkpoint, or its parameters are not this architecture's.
    """
    state = dict(load_state_dict(str(weights_file(path))))
    tower_only = any(name.endswith(_TOWER_MARK) for name in state)
    if tower_only:
        state = tower_of_transformers(state)
    token = state.get("visual.class_embedding")
    if token is not None and token.ndim == 1:
        state["visual.class_embedding"] = copy_class_token(token.float(), model.visual.branches)
    projection = state.get("visual.proj")
    if projection is not None and model.visual.proj.ndim == 3:
        state["visual.proj"] = projection.expand_as(model.visual.proj)
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    state = {name: value.float() for name, value in state.items()}
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    new = {name for name in model.state_dict() if name == "visual.proj" or not name.startswith("visual.")}
    try:
        found = model.load_state_dict(state, strict=not tower_only)
    except RuntimeError as error:
        raise _misfit(path, str(error).splitlines()[1].strip()) from error
    odd = [*found.unexpected_keys, *(name for name in found.missing_keys if name not in new)]
    if odd:
        raise _misfit(path, f"{odd[0]} is not in both")


def tower_of_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower of a transformers CLIP (alone or inside a larger model) under open_clip's names."""
    mark = next(name for name in state if name.endswith(_TOWER_MARK))
    prefix = mark.removesuffix(_TOWER_MARK)
    tower: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(prefix) and not name.endswith("position_ids"):
            renamed = name.removeprefix(prefix)
            for pattern, replacement in _RENAMED:
                renamed = re.sub(pattern, replacement, renamed)
            if renamed.startswith("visual."):
                tower[renamed] = value
    return _with_joint_projections(tower)


def _with_joint_projections(tower: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers keeps queries, keys and values apart; open_clip has them in one matrix."""
    for name in [name for name in tower if ".self_attn.q_proj." in name]:
        parts = [tower.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        kind = name.rpartition(".")[2]
        tower[f"{name.partition('.self_attn.')[0]}.attn.in_proj_{kind}"] = torch.cat(parts)
    return tower


def _misfit(path: str | Path, reason: str) -> ConfigError:
    return ConfigError(
        f"train.warm_start: {path} does not fit train.model ({reason}); spell out the architecture it was trained with"
    )
