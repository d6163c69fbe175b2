"""The towers against open_clip's, and what each isolation lets through."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.branches.class_tokens import class_mask
from training.config import BranchOptions, Isolation
from training.model import HolisticCLIP
from training.towers import resolve_architecture
from training.warm_start import warm_start

SLOTS = ("detail", "style", "nouns")
ISOLATIONS: tuple[Isolation, ...] = ("none", "tokens", "full", "paper")


@pytest.fixture
def image_BCSS() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make(architecture: dict[str, Any], slots: tuple[str, ...], isolation: Isolation) -> HolisticCLIP:
    torch.manual_seed(1)
    return HolisticCLIP(architecture, slots, BranchOptions(isolation=isolation)).eval()


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_one_branch_is_open_clip(
    tiny_architecture: dict[str, Any], image_BCSS: Tensor, isolation: Isolation, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    plain = open_clip.CLIP(**tiny_architecture).eval()
    torch.save(plain.state_dict(), tmp_path / "clip.pt")
    model = make(tiny_architecture, ("image",), isolation)
    warm_start(model, tmp_path / "clip.pt")
    text = open_clip.SimpleTokenizer(context_length=32)(["a red star", "two small boats on a calm sea"])
    branch_BD = model.encode_branches(image_BCSS, normalize=False)[:, 0]
    torch.testing.assert_close(branch_BD, plain.encode_image(image_BCSS))
    torch.testing.assert_close(model.encode_image(image_BCSS), plain.encode_image(image_BCSS, normalize=True))
    torch.testing.assert_close(model.encode_text(text), plain.encode_text(text))
    trimmed = text[:, : int((text != 0).sum(dim=1).max())]
    assert trimmed.shape[1] < 32
    torch.testing.assert_close(model.encode_text(trimmed), plain.encode_text(text))


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_split_attention_equals_one_masked_attention(
    tiny_architecture: dict[str, Any], image_BCSS: Tensor, isolation: Isolation
) -> None:
    """open_clip's own blocks under the whole (L, L) mask give the same branches."""
    model = make(tiny_architecture, SLOTS, isolation)
    vit, H = model.visual, len(SLOTS)
    length = H + 16
    mask_LL = torch.zeros(length, length)
    class_mask_HL = class_mask(H, 16, isolation)
    if class_mask_HL is not None:
        mask_LL[:H] = class_mask_HL
    if isolation == "full":
        mask_LL[H:, :H] = float("-inf")
    last_BLW = vit.transformer(vit.embed(image_BCSS, vit.class_embedding), attn_mask=mask_LL)
    expected = vit.ln_post(last_BLW)[:, :H] @ vit.proj
    torch.testing.assert_close(model.encode_branches(image_BCSS, normalize=False), expected, rtol=1e-4, atol=1e-5)


def moved_by(model: HolisticCLIP, image_BCSS: Tensor, branch: int) -> list[bool]:
    """Which branches' outputs change when one class token does."""
    with torch.no_grad():
        before = model.encode_branches(image_BCSS)
        model.visual.class_embedding[branch] += torch.randn(32)
        after = model.encode_branches(image_BCSS)
    return [bool((before[:, h] - after[:, h]).abs().max() > 1e-6) for h in range(len(SLOTS))]


def test_full_isolation_lets_nothing_through(tiny_architecture: dict[str, Any], image_BCSS: Tensor) -> None:
    model = make(tiny_architecture, SLOTS, "full")
    for branch in range(3):
        assert moved_by(model, image_BCSS, branch) == [h == branch for h in range(3)]


@pytest.mark.parametrize("isolation", ["none", "tokens", "paper"])
def test_other_isolations_mix_over_two_layers(
    tiny_architecture: dict[str, Any], image_BCSS: Tensor, isolation: Isolation
) -> None:
    assert moved_by(make(tiny_architecture, SLOTS, isolation), image_BCSS, 1) == [True, True, True]


def test_token_isolation_mixes_through_patches_only(tiny_architecture: dict[str, Any], image_BCSS: Tensor) -> None:
    """With a single layer there is no way over the patches, so the other branches stay put."""
    shallow = {**tiny_architecture, "vision_cfg": {**tiny_architecture["vision_cfg"], "layers": 1}}
    assert moved_by(make(shallow, SLOTS, "tokens"), image_BCSS, 0) == [True, False, False]
    assert moved_by(make(shallow, SLOTS, "none"), image_BCSS, 0) == [True, True, True]


def test_own_projections_serve_their_branch_alone(tiny_architecture: dict[str, Any], image_BCSS: Tensor) -> None:
    model = HolisticCLIP(tiny_architecture, SLOTS, BranchOptions(projection="branch")).eval()
    assert model.visual.proj.shape == (3, 32, 24)
    assert model.encode_patches(image_BCSS).shape == (3, 16, 24)
    assert all(torch.equal(projection, model.visual.proj[0]) for projection in model.visual.proj)  # until trained
    with torch.no_grad():
        before = model.encode_branches(image_BCSS)
        model.visual.proj[1] += torch.randn(32, 24)
        after = model.encode_branches(image_BCSS)
    assert [bool((before[:, h] != after[:, h]).any()) for h in range(3)] == [False, True, False]
    lone = HolisticCLIP(tiny_architecture, ("image",), BranchOptions(projection="branch"))
    assert lone.visual.proj.shape == (32, 24)


def test_paper_isolation_is_a_bias_of_one() -> None:
    mask_HL = class_mask(3, 4, "paper")
    assert mask_HL is not None
    assert mask_HL[:, :3].tolist() == [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert not mask_HL[:, 3:].any()


def test_served_vector_is_the_mean_of_normalised_branches(
    tiny_architecture: dict[str, Any], image_BCSS: Tensor
) -> None:
    model = make(tiny_architecture, SLOTS, "tokens")
    branches_BHD = model.encode_branches(image_BCSS)
    torch.testing.assert_close(branches_BHD.norm(dim=-1), torch.ones(3, 3))
    torch.testing.assert_close(model.encode_image(image_BCSS), branches_BHD.mean(dim=1))
    served = model.encode_image(image_BCSS, normalize=True)
    torch.testing.assert_close(served, F.normalize(branches_BHD.mean(dim=1), dim=-1))
    # The mean of the branches' logits is the logit of their mean (PAPER 1.4).
    text_TD = F.normalize(torch.randn(5, 24), dim=-1)
    torch.testing.assert_close((branches_BHD @ text_TD.T).mean(dim=1), model.encode_image(image_BCSS) @ text_TD.T)


def test_architectures_come_from_the_registry_or_are_spelled_out(tiny_architecture: dict[str, Any]) -> None:
    assert resolve_architecture("ViT-B-16")["vision_cfg"]["patch_size"] == 16
    assert resolve_architecture(tiny_architecture, context_length=40)["text_cfg"]["context_length"] == 40
    assert tiny_architecture["text_cfg"]["context_length"] == 32  # the caller's dict is left alone
    with pytest.raises(ConfigError, match="not in open_clip's registry"):
        resolve_architecture("ViT-B-17")
    for name, why in (
        ("ViT-B-16-SigLIP", "timm's image tower"),
        ("roberta-ViT-B-32", "text tower of its own"),
        ("RN50", "a ResNet"),
        ("ViT-L-14-CLIPA", "text tower"),
    ):
        with pytest.raises(ConfigError, match=f"{why}.*branches need open_clip's own ViT"):
            resolve_architecture(name)
    acausal = {**tiny_architecture, "text_cfg": {**tiny_architecture["text_cfg"], "no_causal_mask": True}}
    with pytest.raises(ConfigError, match="causal mask"):
        resolve_architecture(acausal)
    for part, change, said in (
        ("text_cfg", {"vocab_size": 1000}, "a text tower of 1000 tokens, where CLIP's tokenizer has 49408"),
        ("vision_cfg", {"image_size": [32, 48]}, "images of 32 × 48 px, but training cuts squares"),
    ):
        with pytest.raises(ConfigError, match=said):
            resolve_architecture({**tiny_architecture, part: {**tiny_architecture[part], **change}})
    with pytest.raises(ConfigError, match="vision_cfg"):
        resolve_architecture({"embed_dim": 8, "text_cfg": {}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pool_type": "avg"}, "pooling 'avg'"),
        ({"patch_dropout": 0.5}, "patch dropout"),
        *(({feature: True}, "blocks of type CustomResidualAttentionBlock") for feature in ("qk_norm", "scale_fc")),
    ],
)
def test_towers_that_are_no_plain_vit_are_refused(
    tiny_architecture: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make({**tiny_architecture, "vision_cfg": {**tiny_architecture["vision_cfg"], **change}}, SLOTS, "tokens")


def test_too_wide_texts_are_refused(tiny_architecture: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="33 tokens wide"):
        make(tiny_architecture, SLOTS, "tokens").encode_text(torch.zeros(1, 33, dtype=torch.long))
