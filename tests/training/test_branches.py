"""Every kind of branch: what it computes, what it lets through, and that it starts as the CLIP it was made of."""

import copy
import itertools
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from benchmarks.released_mlp import ReleasedMLPs
from pipeline.errors import ConfigError
from training.branches import BranchMLPs, branched
from training.branches.blocks import attend_rows, row_sources
from training.branches.mlps import BranchLinear
from training.config import BranchOptions, RunConfig
from training.model import HolisticCLIP
from training.optim import make_optimizer
from training.warm_start import warm_start

KINDS = ("cls", "mlp", "query")
ALONE = (BranchOptions(isolation="full"), BranchOptions(kind="mlp", blocks=2), BranchOptions(kind="query", blocks=2))
OPTIONS = st.builds(
    BranchOptions,
    kind=st.sampled_from(KINDS),
    isolation=st.sampled_from(["none", "tokens", "full", "paper"]),
    projection=st.sampled_from(["shared", "branch"]),
    blocks=st.integers(1, 3),
)
VISION = {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 3}
TEXT = {"context_length": 16, "vocab_size": 64, "width": 8, "heads": 1, "layers": 1}
SMALL = {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}
QUICK = settings(max_examples=40, deadline=None)


def small(branches: int, options: BranchOptions, **vision: Any) -> HolisticCLIP:
    torch.manual_seed(3)
    architecture = {**SMALL, "vision_cfg": {**VISION, **vision}}
    model = HolisticCLIP(architecture, [f"slot{h}" for h in range(branches)], options).eval()
    for block in model.visual.blocks:  # fresh attention has no biases, and these must be got right too
        torch.nn.init.normal_(block.attn.in_proj_bias)
    return model


def pictures(count: int = 2, side: int = 16) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@QUICK
@given(branches=st.integers(1, 4), options=OPTIONS)
def test_the_read_out_equals_the_last_block_whole(branches: int, options: BranchOptions) -> None:
    tower = small(branches, options).visual
    class_BHW, patch_BNW = tower.tokens(pictures())
    assert class_BHW.shape == (2, branches, 16)
    assert patch_BNW.shape == (2, 4, 16)
    torch.testing.assert_close(tower(pictures()), tower.project(class_BHW), rtol=1e-4, atol=1e-5)


@QUICK
@given(branches=st.integers(2, 4), data=st.data())
def test_patches_are_the_mean_over_branches(branches: int, data: st.DataObject) -> None:
    """Of what each makes of them, and of what each projects them to."""
    tower = small(branches, BranchOptions(kind="mlp", blocks=2, projection="branch")).visual
    with torch.no_grad():
        _, patch_BNW = tower.tokens(pictures())
        each = torch.stack([patch_BNW @ projection for projection in tower.proj])
        torch.testing.assert_close(tower.project_patches(patch_BNW), each.mean(dim=0), rtol=1e-4, atol=1e-5)
        tower.blocks[-1].mlp.c_proj.weight[data.draw(st.integers(0, branches - 1)), 0] += 1.0
        assert (tower.tokens(pictures())[1] - patch_BNW).abs().max() > 1e-3


@QUICK
@given(branches=st.integers(1, 4), options=OPTIONS, image=st.integers(0, 2))
def test_an_image_depends_on_no_other_of_its_batch(branches: int, options: BranchOptions, image: int) -> None:
    model = small(branches, options)
    batch = model.encode_branches(pictures(3))
    torch.testing.assert_close(model.encode_branches(pictures(3)[image : image + 1])[0], batch[image])


@QUICK
@given(branches=st.integers(1, 4), options=OPTIONS)
def test_every_parameter_gets_a_gradient(branches: int, options: BranchOptions) -> None:
    """DDP waits for all of them."""
    tower = small(branches, options).visual
    tower(pictures()).square().sum().backward()
    assert [name for name, parameter in tower.named_parameters() if parameter.grad is None] == []


@QUICK
@given(branches=st.integers(1, 4), options=OPTIONS)
def test_no_mask_has_more_rows_than_the_branches(branches: int, options: BranchOptions) -> None:
    """The patches' attention keeps the fast kernels: only the few class rows, one a head, ever have a mask."""
    attention = F.scaled_dot_product_attention
    rows: list[int] = []

    def recorded(*args: Any, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        rows.append(0 if attn_mask is None else attn_mask.shape[-2])
        return attention(*args, attn_mask=attn_mask, **kwargs)

    tower = small(branches, options).visual
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", recorded)
        tower.tokens(pictures())
        tower(pictures())
    heads = 2
    assert max(rows) <= heads * branches
    assert branches > 1 or max(rows) == 0


@pytest.mark.parametrize("options", ALONE, ids=lambda options: options.kind)
@given(data=st.data(), branches=st.integers(2, 4))
@settings(max_examples=15, deadline=None)
def test_a_branch_of_its_own_moves_alone(options: BranchOptions, data: st.DataObject, branches: int) -> None:
    """Change a branch's row in any of the parameters that have one: its output moves, no other does."""
    tower = small(branches, options).visual
    name = data.draw(st.sampled_from(tower.branch_parameters))
    h = data.draw(st.integers(0, branches - 1))
    with torch.no_grad():
        before = tower(pictures())
        row = tower.get_parameter(name)[h]
        row += torch.randn(row.shape)
        moved_H = (tower(pictures()) - before).abs().amax(dim=(0, 2))
    assert [bool(moved > 1e-5) for moved in moved_H] == [other == h for other in range(branches)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", [{}, {"ls_init_value": 0.1}, {"no_ln_pre": True}, {"image_size": [16, 24]}])
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_one_branch_is_open_clip_in_values_and_gradients(
    kind: Any, variant: dict[str, Any], quick_gelu: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    architecture = {**SMALL, "vision_cfg": {**VISION, **variant}, "quick_gelu": quick_gelu}
    plain = open_clip.CLIP(**architecture)
    for block in plain.visual.transformer.resblocks:
        torch.nn.init.normal_(block.attn.in_proj_bias)
    torch.save(plain.state_dict(), tmp_path / "clip.pt")
    model = HolisticCLIP(architecture, ("image",), BranchOptions(kind=kind))
    warm_start(model, tmp_path / "clip.pt")
    image_BCSS = torch.randn(3, 3, 16, 24 if "image_size" in variant else 16)
    text_TL = torch.randint(1, 63, (3, 16)).sort(dim=1).values
    losses = []
    for image_BD, text_BD in (
        (plain.encode_image(image_BCSS, normalize=True), plain.encode_text(text_TL, normalize=True)),
        (model.encode_image(image_BCSS, normalize=True), model.encode_text(text_TL, normalize=True)),
    ):
        losses.append(F.cross_entropy(10 * image_BD @ text_BD.T, torch.arange(3)))
        losses[-1].backward()
    torch.testing.assert_close(losses[0], losses[1])
    theirs = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if name == "logit_scale":
            continue
        expected = theirs[name].grad
        assert expected is not None
        torch.testing.assert_close(parameter.grad, expected.view_as(parameter), rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("options", ALONE[1:], ids=lambda options: options.kind)
def test_branches_start_as_the_clip_they_come_from(
    options: BranchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without noise, every branch is CLIP's own vector.

    Class tokens are no such start: patches see H of them where CLIP's see one, or none where they are isolated fully.
    """
    monkeypatch.setattr("training.warm_start.COPY_NOISE", 0.0)
    plain = open_clip.CLIP(**SMALL).eval()
    torch.save(plain.state_dict(), tmp_path / "clip.pt")
    model = small(3, options)
    if options.kind == "query":
        torch.nn.init.zeros_(model.visual.branch_queries)
    warm_start(model, tmp_path / "clip.pt")
    expected = plain.encode_image(pictures())
    for h in range(3):
        torch.testing.assert_close(model.visual(pictures())[:, h], expected, rtol=1e-4, atol=1e-5)


@QUICK
@given(branches=st.integers(2, 4), blocks=st.integers(1, 3))
def test_mlp_branches_equal_the_released_mechanism(branches: int, blocks: int) -> None:
    tower = small(branches, BranchOptions(kind="mlp", blocks=blocks)).visual
    assert isinstance(tower, BranchMLPs)
    reference = ReleasedMLPs(copy.deepcopy(tower))
    torch.testing.assert_close(tower(pictures()), reference(pictures()), rtol=0, atol=1e-5)
    tower(pictures()).square().sum().backward()
    reference(pictures()).square().sum().backward()
    theirs = dict(reference.tower.named_parameters())
    for place, layers in enumerate(reference.last_layers, start=len(tower.blocks) - blocks):
        for kind in ("weight", "bias"):
            grads = [layer.get_parameter(kind).grad for layer in layers]
            theirs[f"transformer.resblocks.{place}.mlp.c_proj.{kind}"].grad = torch.stack(grads)
    for name, parameter in tower.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("inputs", [1, 3], ids=["shared input", "own inputs"])
def test_a_layer_per_branch_has_the_gradients_of_finite_differences(inputs: int) -> None:
    layer = BranchLinear(torch.nn.Linear(5, 4), branches=3).double()
    x_GBLF = torch.randn(inputs, 2, 3, 5, dtype=torch.float64, requires_grad=True)

    def out(x_GBLF: Tensor, weight: Tensor, bias: Tensor) -> Any:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x_GBLF,))

    assert torch.autograd.gradcheck(out, (x_GBLF, layer.weight, layer.bias))


@pytest.mark.parametrize("inputs", [1, 3], ids=["shared input", "own inputs"])
def test_gradients_of_a_layer_per_branch_come_in_its_layout(inputs: int) -> None:
    """Else each step copies them: 47 MB a block in B/16."""
    layer = BranchLinear(torch.nn.Linear(6, 4), branches=3)
    grad_HWF, _ = torch.autograd.grad(layer(torch.randn(inputs, 2, 3, 6)).sum(), list(layer.parameters()))
    assert grad_HWF.is_contiguous()


@pytest.mark.parametrize("blocks", [1, 2])
def test_mlp_branches_have_gradients_in_bf16(blocks: int) -> None:
    """Backward runs without autocast, so it must find all factors in one type."""
    tower = small(3, BranchOptions(kind="mlp", blocks=blocks)).visual
    layer = tower.blocks[-1].mlp.c_proj
    grads = []
    for enabled in (False, True):
        tower.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            out_BHD = tower(pictures()).float()
        out_BHD.square().sum().backward()
        grads.append(layer.weight.grad.flatten())
    assert grads[1].dtype == torch.float32
    assert F.cosine_similarity(*grads, dim=0) > 0.999


def test_deeper_branches_than_the_tower_are_refused() -> None:
    for kind in ("mlp", "query"):
        with pytest.raises(ConfigError, match="branch_blocks is 4, but the image tower has 3 blocks"):
            small(2, BranchOptions(kind=kind, blocks=4))


def test_no_class_token_query_or_bias_is_decayed() -> None:
    model = small(3, BranchOptions(kind="mlp"))
    decayed = {id(p) for p in make_optimizer(model, RunConfig()).param_groups[0]["params"]}
    names = [name for name, parameter in model.named_parameters() if id(parameter) in decayed]
    assert not [name for name in names if name.endswith(("bias", "_embedding", "queries", "logit_scale"))]
    assert any(name.endswith("c_proj.weight") for name in names)


@QUICK
@given(branches=st.integers(1, 4), options=OPTIONS)
def test_bf16_stays_as_near_as_open_clips_own(branches: int, options: BranchOptions) -> None:
    model = small(branches, options)
    with torch.no_grad():
        exact = model.encode_branches(pictures(8))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model.encode_branches(pictures(8)).float()
            plain_rough = F.normalize(open_clip_twin(model)(pictures(8)).float(), dim=-1)
        plain_exact = F.normalize(open_clip_twin(model)(pictures(8)), dim=-1)
    theirs = (1 - F.cosine_similarity(plain_rough, plain_exact, dim=-1)).max()
    ours = (1 - F.cosine_similarity(rough, exact, dim=-1)).max()
    assert ours < max(4 * theirs, 2e-4)


def open_clip_twin(model: HolisticCLIP) -> torch.nn.Module:
    """open_clip's tower of the same size, with this one's attention biases."""
    torch.manual_seed(3)
    twin = open_clip.CLIP(**SMALL).visual.eval()
    for block in twin.transformer.resblocks:
        torch.nn.init.normal_(block.attn.in_proj_bias)
    return twin


@pytest.mark.slow
@pytest.mark.parametrize("options", [BranchOptions(), *ALONE[1:]], ids=lambda options: options.kind)
def test_compiled_towers_give_the_same_numbers(options: BranchOptions) -> None:
    tower = small(3, options, layers=2).visual
    compiled = torch.compile(tower)
    torch.testing.assert_close(compiled(pictures()), tower(pictures()), rtol=1e-4, atol=1e-5)
    eager, same = (_gradients(module, tower) for module in (tower, compiled))
    for name, grad in eager.items():
        torch.testing.assert_close(same[name], grad, rtol=1e-3, atol=1e-4, msg=name)


def _gradients(module: Any, tower: torch.nn.Module) -> dict[str, Tensor]:
    tower.zero_grad(set_to_none=True)
    module(pictures()).square().sum().backward()
    return {name: parameter.grad for name, parameter in tower.named_parameters() if parameter.grad is not None}


def test_towers_of_every_open_clip_vit_can_branch() -> None:
    """Shapes only: nothing of such size is filled with numbers here."""
    unlike = ("SigLIP", "CLIPA", "worldwide")
    names = [name for name in open_clip.list_models() if name.startswith("ViT-")]
    names = [name for name in names if not any(part in name for part in unlike)]
    assert len(names) >= 30
    for name, kind in zip(names, itertools.cycle(KINDS), strict=False):
        with torch.device("meta"):
            tower = branched(open_clip.CLIP(**open_clip.get_model_config(name)).visual, 3, BranchOptions(kind=kind))
        assert tower.proj.shape == (tower.width, open_clip.get_model_config(name)["embed_dim"])


@QUICK
@given(branches=st.integers(1, 4), options=OPTIONS)
def test_what_patches_give_a_branch_is_all_that_attention_gives_it(branches: int, options: BranchOptions) -> None:
    """With what its row had, what class tokens give it and the bias, it is the row after attention."""
    tower = small(branches, options).visual
    x = tower.up_to_last(pictures())
    block, kind = tower.blocks[-1], type(tower).__name__
    rows = 1 if kind == "BranchMLPs" else branches
    x_XLW = x.flatten(0, 1) if kind == "BranchMLPs" else x
    mask = getattr(tower, "class_mask_HL", getattr(tower, "query_mask_HL", None))
    given_XRLW = row_sources(block, x_XLW, rows, mask)
    bias_W = F.linear(torch.zeros(16), block.attn.out_proj.weight, block.attn.out_proj.bias)
    after_XRW = x_XLW[:, :rows] + given_XRLW.sum(dim=2) + bias_W
    torch.testing.assert_close(after_XRW, attend_rows(block, x_XLW, rows, mask), rtol=1e-4, atol=1e-5)
    source_BHNW = tower.patch_sources(x)
    assert source_BHNW.shape == (2, branches, 4, 16)
    if kind != "BranchMLPs":
        torch.testing.assert_close(source_BHNW, given_XRLW[:, :, -4:])


@QUICK
@given(branches=st.integers(1, 4), options=OPTIONS)
def test_maps_of_patches_are_the_last_blocks_tokens_in_the_joint_space(branches: int, options: BranchOptions) -> None:
    model = small(branches, options)
    map_BGRCD = model.patch_maps(pictures())
    has_own = branches > 1 and (options.kind == "mlp" or options.projection == "branch")
    assert map_BGRCD.shape == (2, branches if has_own else 1, 2, 2, 8)
    if not has_own:
        expected = model.encode_patches(pictures(), normalize=False)
        torch.testing.assert_close(map_BGRCD.flatten(1, 3), expected, rtol=1e-4, atol=1e-5)
    attended_BHRCD = model.attended_maps(pictures())
    assert attended_BHRCD.shape == (2, branches, 2, 2, 8)
    assert torch.isfinite(attended_BHRCD).all()
