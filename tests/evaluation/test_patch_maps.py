"""Maps of patches: what each form of model gives is what its own library computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import training
from evaluation import models, patch_maps
from tests.evaluation.conftest import TINY
from tests.evaluation.test_models import SLOTS, form, save_transformers
from training.config import BranchOptions
from training.model import HolisticCLIP


def pictures(side: int = 16) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def loaded(kind: str, tmp_path: Path) -> Any:
    return models.load("theirs", form(kind, tmp_path)[0]).model


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["open_clip export", "transformers clip"])
def test_patches_go_the_way_of_the_class_token(kind: str, tmp_path: Path) -> None:
    model = loaded(kind, tmp_path)
    map_BGRCD = patch_maps.maps(model, pictures(), "patches")
    assert map_BGRCD.shape == (2, 1, 2, 2, 16)
    if kind == "open_clip export":
        ours = training.load(tmp_path / "model")[0].eval()
        torch.testing.assert_close(map_BGRCD, patch_maps.maps(ours, pictures(), "patches"), rtol=1e-4, atol=1e-5)
        expected_BND = ours.encode_patches(pictures())
    else:
        theirs = model.model
        token_BLW = theirs.vision_model(pixel_values=pictures()).last_hidden_state
        joint_BLD = theirs.visual_projection(theirs.vision_model.post_layernorm(token_BLW))
        torch.testing.assert_close(joint_BLD[:, :1], model.encode_branches(pictures()))
        expected_BND = F.normalize(joint_BLD[:, 1:], dim=-1)
    torch.testing.assert_close(map_BGRCD.flatten(1, 3), expected_BND, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_siglips_head_pools_each_patch_alone(tmp_path: Path) -> None:
    """With one patch the whole picture is that patch."""
    model = models.load("theirs", str(save_transformers(tmp_path / "siglip", "siglip"))).model
    vision = model.model.vision_model
    pooled_BD = vision(pixel_values=pictures()).last_hidden_state
    map_BGRCD = model.patch_maps(pictures())
    for row, column in ((0, 0), (1, 0)):
        alone_BD = vision.head(pooled_BD[:, 2 * row + column : 2 * row + column + 1])
        torch.testing.assert_close(map_BGRCD[:, 0, row, column], alone_BD)
    everything = vision.head(pooled_BD)
    torch.testing.assert_close(everything, model.encode_branches(pictures())[:, 0])


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["holism", "open_clip export", "transformers clip", "transformers siglip"])
def test_value_attention_compares_values_and_leaves_the_model_as_it_was(kind: str, tmp_path: Path) -> None:
    model = loaded(kind, tmp_path)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    plain = patch_maps.maps(model, pictures(), "patches")
    changed = patch_maps.maps(model, pictures(), "value_attention")
    assert not torch.allclose(plain, changed, atol=1e-4)
    assert torch.equal(patch_maps.maps(model, pictures(), "patches"), plain)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name


@torch.inference_mode()
def test_value_attention_is_attention_of_values_to_values() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    nn.init.normal_(attention.in_proj_bias)
    x_BLW = torch.randn(2, 5, 8)
    value_BLW = F.linear(x_BLW, attention.in_proj_weight[16:], attention.in_proj_bias[16:])
    v_BhLd = value_BLW.unflatten(-1, (2, 4)).transpose(1, 2)
    expected_BLW = attention.out_proj(
        F.scaled_dot_product_attention(v_BhLd, v_BhLd, v_BhLd).transpose(1, 2).flatten(2)
    )
    with patch_maps.value_attention(attention):
        torch.testing.assert_close(attention(x_BLW, x_BLW, x_BLW)[0], expected_BLW, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "patches"),
    [
        (BranchOptions(), ["mean"]),
        (BranchOptions(projection="branch"), ["mean", "branch:colour", "branch:detail"]),
        (BranchOptions(kind="mlp", blocks=1), ["mean", "branch:colour", "branch:detail"]),
        (BranchOptions(kind="query", blocks=1), ["mean"]),
    ],
)
def test_branches_are_read_where_they_have_maps_of_their_own(options: BranchOptions, patches: list[str]) -> None:
    torch.manual_seed(0)
    model = HolisticCLIP(TINY, SLOTS, options).eval()
    if options.projection == "branch":
        torch.nn.init.normal_(model.visual.proj)  # as trained: they start as copies of one
    everything = ["mean", "branch:colour", "branch:detail"]
    for kind, expected in (("patches", patches), ("attended", everything)):
        map_BGRCD = patch_maps.maps(model, pictures(), kind)  # type: ignore[arg-type]
        assert patch_maps.readouts_of(map_BGRCD.shape[1], SLOTS, ("mean", "branches")) == expected
        assert patch_maps.readouts_of(map_BGRCD.shape[1], SLOTS, ("mean",)) == ["mean"]
        if len(expected) > 1:
            own = [patch_maps.read_out(map_BGRCD[0], readout, SLOTS) for readout in expected]
            assert not torch.allclose(own[1], own[2], atol=1e-4)
            torch.testing.assert_close(own[0], (own[1] + own[2]) / 2)
