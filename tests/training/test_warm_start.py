"""Warm starts: whole open_clip checkpoints, and image towers of transformers models."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.config import BranchOptions
from training.model import HolisticCLIP
from training.warm_start import warm_start
from training.weights import weights_digest

SLOTS = ("detail", "style", "nouns")


def test_the_class_token_is_copied_and_positions_are_resampled(
    tiny_architecture: dict[str, Any], tmp_path: Path
) -> None:
    plain = open_clip.CLIP(**tiny_architecture)
    torch.save({"state_dict": {f"module.{k}": v for k, v in plain.state_dict().items()}}, tmp_path / "epoch.pt")
    larger = {**tiny_architecture, "vision_cfg": {**tiny_architecture["vision_cfg"], "image_size": 48}}
    model = HolisticCLIP(larger, SLOTS)
    warm_start(model, tmp_path / "epoch.pt")
    token, copies = plain.visual.class_embedding, model.visual.class_embedding
    assert copies.shape == (3, 32)
    assert F.cosine_similarity(copies, token.expand(3, -1)).min() > 0.98
    assert not torch.equal(copies[0], copies[1])
    assert model.visual.positional_embedding.shape == (37, 32)
    torch.testing.assert_close(model.visual.conv1.weight, plain.visual.conv1.weight)
    several = HolisticCLIP(larger, SLOTS, BranchOptions(projection="branch"))
    warm_start(several, tmp_path / "epoch.pt")
    assert all(torch.equal(projection, plain.visual.proj) for projection in several.visual.proj)


@pytest.mark.parametrize("prefix", ["", "vision_model.", "model.vision_tower.vision_model."])
def test_a_transformers_tower_gives_the_same_features(
    tiny_architecture: dict[str, Any], tmp_path: Path, prefix: str
) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    settings = CLIPVisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        hidden_act="gelu",
    )  # fmt: skip
    theirs = CLIPVisionModel(settings).eval()
    bare = {name.removeprefix("vision_model."): value for name, value in theirs.state_dict().items()}
    state = {prefix + name: value.contiguous() for name, value in bare.items()}
    if prefix.startswith("model."):
        state["model.language_model.embed_tokens.weight"] = torch.zeros(4, 4)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    ours = HolisticCLIP(tiny_architecture, ("image",)).eval()
    text_before = ours.token_embedding.weight.clone()
    warm_start(ours, tmp_path)
    image_BCSS = torch.randn(2, 3, 32, 32)
    class_BHW, _ = ours.visual.tokens(image_BCSS)
    torch.testing.assert_close(class_BHW[:, 0], theirs(image_BCSS).pooler_output, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.token_embedding.weight, text_before)


def test_what_does_not_fit_is_refused(tiny_architecture: dict[str, Any], tmp_path: Path) -> None:
    deeper = {**tiny_architecture, "vision_cfg": {**tiny_architecture["vision_cfg"], "layers": 3}}
    torch.save(open_clip.CLIP(**deeper).state_dict(), tmp_path / "deeper.pt")
    with pytest.raises(ConfigError, match="does not fit"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "deeper.pt")
    with pytest.raises(ConfigError, match="no checkpoint at"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "absent.pt")


def test_other_weights_are_another_start(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    first = weights_digest(tmp_path)
    assert first == weights_digest(file)
    file.write_bytes(b"two")
    assert weights_digest(tmp_path) != first
