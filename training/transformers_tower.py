"""The image tower of a transformers CLIP, alone or inside a larger model, under open_clip's names.

Such towers are found in CLIP vision models and in most vision-language models, under some prefix.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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


def has_transformers_tower(state: Mapping[str, Tensor]) -> bool:
    return any(name.endswith(_TOWER_MARK) for name in state)


def tower_of_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tower's weights and no others."""
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
