"""The second score: what it computes, the term that trains it, and that it is kept and loaded."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import training
from pipeline.config import build
from pipeline.errors import ConfigError
from tests.training.conftest import make_inputs
from training import text_pooling
from training.bundles import read_bundles
from training.checkpoint import model_files
from training.config import RunConfig, TrainConfig
from training.losses import Features, gather
from training.losses.terms.text_conditioned import text_conditioned
from training.model import HolisticCLIP
from training.ranks import Ranks
from training.text_pooling import TextConditionedPooling, rows_of

B, M, D, PATCHES = 4, 3, 8, 5


def unit(*shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def pooling() -> TextConditionedPooling:
    module = TextConditionedPooling(D).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_text_finds_the_weighted_patches_and_a_null_token() -> None:
    module, patch_BND, text_BTD = pooling(), torch.randn(B, PATCHES, D).double(), unit(B, 2, D)
    for b in range(B):
        patches = F.layer_norm(patch_BND[b], (D,), module.norm_patches.weight, module.norm_patches.bias)
        for t in range(2):
            query = module.query(F.layer_norm(text_BTD[b, t], (D,), module.norm_texts.weight, module.norm_texts.bias))
            logits = torch.cat([module.key(patches) @ query / math.sqrt(D), torch.zeros(1).double()])
            found = module.out(logits.softmax(0)[:-1] @ module.value(patches))
            expected = F.cosine_similarity(found, text_BTD[b, t], dim=0)
            torch.testing.assert_close(module(patch_BND, *rows_of(text_BTD))[b, t], expected)


def test_tiles_give_the_same_scores_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    module, patch_BND, text_BTD = pooling(), torch.randn(B, PATCHES, D).double().requires_grad_(), unit(B, 6, D)
    whole = module(patch_BND, *rows_of(text_BTD))
    (wanted,) = torch.autograd.grad(whole.square().sum(), patch_BND)
    monkeypatch.setattr(text_pooling, "TILE", 2 * 6 * D)
    tiled = module(patch_BND, *rows_of(text_BTD))
    torch.testing.assert_close(tiled, whole)
    torch.testing.assert_close(torch.autograd.grad(tiled.square().sum(), patch_BND)[0], wanted)


def test_at_first_a_text_takes_the_patches_that_are_like_it() -> None:
    module = TextConditionedPooling(64)
    text_BTD = F.normalize(torch.randn(1, 2, 64), dim=-1)
    patch_BND = torch.cat([50 * text_BTD[:, :1], torch.randn(1, 20, 64)], dim=1)
    there, absent = module(patch_BND, *rows_of(text_BTD))[0]
    assert there > 0.9
    assert there > absent + 0.3


@given(mask=st.lists(st.booleans(), min_size=B * M, max_size=B * M))
@settings(max_examples=40, deadline=None)
def test_the_term_equals_a_loop_over_pairs(mask: list[bool]) -> None:
    mask_BM = torch.tensor(mask).view(B, M)
    module, patch_BND, text_BMD = pooling(), torch.randn(B, PATCHES, D).double(), unit(B, M, D)
    features = conditioned(module, patch_BND, gather(unit(B, 2, D), text_BMD, mask_BM, torch.tensor(7.0).double()))

    def logit(b: int, text: Tensor) -> Tensor:
        return 7 * module(patch_BND[b : b + 1], text[None], torch.tensor([[0]]))[0, 0]

    losses = []
    for b in range(B):
        others = [(n, mask_BM[n].nonzero()[:, 0].tolist()) for n in range(B) if n != b and mask_BM[n].any()]
        bias = -math.log(max(len(others), 1))
        false = sum(F.softplus(logit(b, text_BMD[n, slots[(b + n) % len(slots)]]) + bias) for n, slots in others)
        losses += [F.softplus(-logit(b, text_BMD[b, m]) - bias) + false for m in range(M) if mask_BM[b, m]]
    expected = torch.stack([torch.as_tensor(loss) for loss in losses]).mean() if losses else torch.tensor(0.0).double()
    torch.testing.assert_close(text_conditioned(features).mean, expected)


def test_gradients_by_finite_differences() -> None:
    """Of the pooling's weights too, and of captions that are others' false ones."""
    module, mask_BM = pooling(), torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]]).bool()
    patch_BND, text_BMD = torch.randn(B, PATCHES, D).double().requires_grad_(), unit(B, M, D).requires_grad_()
    scale, weights = torch.tensor(7.0).double().requires_grad_(), dict(module.named_parameters())
    image_BHD = unit(B, 2, D)

    def loss(patch_BND: Tensor, text_BMD: Tensor, scale: Tensor, *values: Tensor) -> Tensor:
        def scored(*arguments: Tensor) -> Tensor:
            found: Tensor = torch.func.functional_call(module, dict(zip(weights, values, strict=True)), arguments)
            return found

        features = gather(image_BHD, text_BMD, mask_BM, scale)
        return text_conditioned(replace(features, conditioned=partial(scored, patch_BND))).mean

    assert torch.autograd.gradcheck(loss, (patch_BND, text_BMD, scale, *weights.values()), fast_mode=True)


class Largest(TorchDispatchMode):
    """The most numbers in any tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(x.numel() for x in tree_leaves(found) if isinstance(x, Tensor))])
        return found


def test_texts_of_all_pairs_never_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory grows with images and with texts, not with images times texts times their width."""
    monkeypatch.setattr(text_pooling, "TILE", 1)
    N, width = 32, 64
    patch_BND, text_NMD = torch.randn(N, 2, width), torch.randn(N, 1, width).requires_grad_()
    features = gather(torch.randn(N, 1, width), text_NMD, torch.ones(N, 1).bool(), torch.tensor(7.0))
    features = conditioned(TextConditionedPooling(width), patch_BND, features)
    with Largest() as largest:
        text_conditioned(features).mean.backward()
    assert text_NMD.grad is not None
    assert N * width <= largest.numbers < N * N * width / 8


def conditioned(module: TextConditionedPooling, patch_BND: Tensor, features: Features) -> Features:
    return replace(features, conditioned=partial(module, patch_BND))


def test_the_mean_over_ranks_is_the_loss_of_the_whole_batch() -> None:
    module, patch_BND = pooling(), torch.randn(B, PATCHES, D).double()
    mask_BM = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]]).bool()
    whole = gather(unit(B, 2, D), unit(B, M, D), mask_BM, torch.tensor(7.0).double())
    of_ranks = []
    for offset in (0, 2):
        rows = slice(offset, offset + 2)
        local = {"image_BHD": whole.image_BHD[rows], "text_BMD": whole.text_BMD[rows], "mask_BM": mask_BM[rows]}
        features = replace(whole, **local, offset=offset, ranks=2)
        of_ranks.append(text_conditioned(conditioned(module, patch_BND[rows], features)).mean)
    torch.testing.assert_close(
        torch.stack(of_ranks).mean(), text_conditioned(conditioned(module, patch_BND, whole)).mean
    )


def test_a_model_without_a_second_score_says_so(tiny_architecture: dict[str, Any]) -> None:
    model = HolisticCLIP(tiny_architecture, ("a", "b"))
    with pytest.raises(ConfigError, match="no second score"):
        model.conditioned_cosines(torch.zeros(1, 4, 24), torch.zeros(1, 1, 24))
    with pytest.raises(ConfigError, match="needs a model with a second score"):
        text_conditioned(gather(unit(B, 2, D), unit(B, M, D), torch.ones(B, M).bool(), torch.tensor(1.0)))
    with pytest.raises(ConfigError, match="re-ranks what another term has to find"):
        build(TrainConfig, {"losses": {"text_conditioned": 1.0}}, source="train")


def test_training_learns_it_and_the_model_keeps_it(tmp_path: Path, recipe: Callable[..., dict[str, Any]]) -> None:
    from pipeline.ingest import shard_uris
    from pipeline.shards import ShardReader
    from pipeline.storage import Location
    from training.trainer import train

    config = RunConfig(**recipe(losses={"served": 1.0, "text_conditioned": 1.0}, epochs=6))
    inputs = make_inputs(tmp_path / "inputs", 18)
    bundles = read_bundles(inputs["curate"], config.slots)
    reader = ShardReader(shard_uris(inputs["ingest"]))
    trained = train("r", config, bundles, reader, Location.of(tmp_path / "run"), Ranks(0, 1, torch.device("cpu")))
    losses = [line for line in trained.metrics.decode().splitlines() if "loss/text_conditioned" in line]
    assert len(losses) == trained.steps == 18
    assert trained.model.text_pooling is not None
    assert not torch.equal(trained.model.text_pooling.value.weight, torch.eye(24))
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in model_files(trained.model, config, 18).items():
        (folder / name).write_bytes(data)
    model, _, _ = training.load(folder)
    patch_BND = model.encode_patches(torch.randn(2, 3, 32, 32), normalize=False)
    text_BTD = F.normalize(torch.randn(2, 5, 24), dim=-1)
    expected = trained.model.conditioned_cosines(patch_BND, text_BTD)
    assert torch.equal(model.conditioned_cosines(patch_BND, text_BTD), expected)
    assert expected.shape == (2, 5)
