"""The token head: what it weighs tokens by, what it is to tell, and that only training has it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import training
from pipeline.clip_tokens import END, START, clip_encoder
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.ingest import shard_uris
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.training.conftest import make_inputs
from tests.training.loss_references import assert_same, embeddings, served_vectors
from tests.training.test_index import SLOTS, rows_of
from training import token_head
from training.bundles import read_bundles
from training.checkpoint import model_files, new_model
from training.config import RunConfig, TrainConfig
from training.index import frequencies
from training.index.frequencies import TokenFrequencies, token_frequencies
from training.losses import Features, gather
from training.losses.terms.tokens import tokens
from training.ranks import Ranks
from training.token_head import TokenHead
from training.towers import VOCABULARY
from training.trainer import Trained, train
from training.warm_start import warm_start

Recipe = Callable[..., dict[str, Any]]
ALONE = Ranks(0, 1, torch.device("cpu"))
B, M, D, L = 5, 3, 12, 6


def made_up_frequencies() -> TokenFrequencies:
    """Some forty tokens, of which number 7 is in every caption; start and end token occur too, as words of texts."""
    holding_V = np.zeros(VOCABULARY, np.int64)
    holding_V[5:45] = np.random.default_rng(0).integers(1, 50, 40)
    holding_V[7] = 100
    holding_V[START:] = 3
    return TokenFrequencies(100, holding_V)


def made_up_head(width: int, dtype: torch.dtype = torch.float64) -> TokenHead:
    torch.manual_seed(0)
    return TokenHead(width, made_up_frequencies()).to(dtype)


def made_up_features(head: TokenHead, branches: int, slots: int, mask: Tensor) -> tuple[Features, tuple[Tensor, ...]]:
    v, t, s = embeddings(3, B, branches, slots)
    token_BML = torch.randint(5, 60, (B, slots, L), generator=torch.Generator().manual_seed(1))  # 45 and more: unknown
    token_BML[0, :, 4:] = END
    token_BML[:, 0, 1] = token_BML[:, 0, 0]  # twice in a caption
    token_BML[~mask] = END
    return replace(gather(v, t, mask, s), token_BML=token_BML, token_loss=head), (v, *head.parameters())


def plain(head: TokenHead, vector: Tensor, ids: list[int]) -> Tensor:
    """SuperCLIP's loss of one vector, by its formula."""
    counts = made_up_frequencies()
    known = [token for token in range(START) if counts.holding_V[token]]
    wanted = sorted(set(ids) & set(known))
    weights = torch.tensor([np.log(101 / (counts.holding_V[token] + 1)) for token in wanted], dtype=torch.float64)
    log_p = F.log_softmax(head.linear(vector * D**0.5), dim=0)
    told = torch.stack([log_p[known.index(token)] for token in wanted] or [0 * log_p[0]])
    return -(weights / weights.sum() * told).sum() if weights.sum() > 0 else 0 * log_p.sum()


MASK = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 0], [1, 0, 1], [1, 1, 1]]).bool()


@pytest.mark.parametrize(("H", "tile"), [(1, 2**24), (3, 2**24), (2, 2**24), (4, 2**24), (3, 100)])
def test_the_term_is_superclips_loss_of_each_vector(H: int, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The served vector tells all captions' tokens, each named branch its slot's; a tile holds two rows or all."""
    monkeypatch.setattr(token_head, "TILE", tile)
    head = made_up_head(D)
    features, leaves = made_up_features(head, H, M, MASK)
    ids = features.token_BML
    assert ids is not None
    images, captions = MASK.any(dim=1).nonzero().flatten().tolist(), MASK[:, : min(H, M)].nonzero().tolist()
    served = torch.stack([plain(head, served_vectors(leaves[0])[b], ids[b].flatten().tolist()) for b in images]).mean()
    branches = torch.stack([plain(head, leaves[0][b, m], ids[b, m].tolist()) for b, m in captions]).mean()
    term = tokens(features)
    assert_same(term.mean, served if H == 1 else (served + branches) / 2, leaves, 1e-6)
    if H < M:
        assert term.slot_M is None
    else:
        assert term.slot_M is not None
        alone = [plain(head, leaves[0][b, 0], ids[b, 0].tolist()) for b in range(B) if MASK[b, 0]]
        torch.testing.assert_close(term.slot_M[0], torch.stack(alone).mean().detach(), rtol=1e-6, atol=1e-6)


def test_a_batch_without_captions_costs_nothing_and_still_gives_the_head_gradients() -> None:
    """Zeros, not none: ranks wait for each other's gradients."""
    head = made_up_head(D)
    features, leaves = made_up_features(head, 3, M, torch.zeros_like(MASK))
    loss = tokens(features).mean
    assert loss == 0
    assert all(not grad.any() for grad in torch.autograd.grad(loss, leaves))


def test_common_tokens_weigh_little_and_special_ones_nothing() -> None:
    head = made_up_head(D)
    frequent, rare = sorted(range(8, 45), key=lambda token: made_up_frequencies().holding_V[token])[::-36]
    (bag,) = head.bags(torch.tensor([[7, rare, frequent, frequent, 60, START, END]]))
    assert bag.sum() == pytest.approx(1.0)
    assert bag[7 - 5] == 0  # of a token that all captions hold
    assert bag[rare - 5] > bag[frequent - 5] > 0
    assert (bag > 0).sum() == 2
    assert len(bag) == 40


def run(folder: Path, recipe: dict[str, Any]) -> Trained:
    config = build(RunConfig, recipe)
    inputs = make_inputs(folder / "inputs", 18)
    bundles = read_bundles(inputs["curate"], config.slots, Location.of(folder / "index"))
    return train("t", config, bundles, ShardReader(shard_uris(inputs["ingest"])), Location.of(folder / "run"), ALONE)


def test_training_learns_to_tell_tokens_and_serves_no_head(tmp_path: Path, recipe: Recipe) -> None:
    settings = recipe(losses={"served": 1.0, "tokens": 0.5}, epochs=9, lr=5e-3)
    trained = run(tmp_path, settings)
    losses = [line["loss/tokens"] for line in map(json.loads, trained.metrics.decode().splitlines())]
    assert sum(losses[-6:]) < 0.93 * sum(losses[:6])  # which cannot fall below the bags' entropy
    assert trained.model.token_head is not None
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in model_files(trained.model, build(RunConfig, settings), 1).items():
        (folder / name).write_bytes(data)
    model, _, _ = training.load(folder)
    assert model.token_head is None
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.encode_image(image), trained.model.encode_image(image))


def test_towers_start_as_without_a_head(tmp_path: Path, recipe: Recipe) -> None:
    still = {"warmup_steps": 10**9, "epochs": 1}  # in which nothing moves
    with_head = run(tmp_path / "with", recipe(losses={"served": 1.0, "tokens": 1.0}, **still)).model.state_dict()
    torch.manual_seed(0)
    fresh = new_model(build(RunConfig, recipe(**still))).state_dict()
    assert {name for name in with_head if name not in fresh} == {"token_head.linear.weight", "token_head.linear.bias"}
    assert all(torch.allclose(with_head[name], value, atol=1e-6) for name, value in fresh.items())


def test_a_checkpoint_with_a_head_is_read_and_starts_others(tmp_path: Path, recipe: Recipe) -> None:
    settings = recipe(losses={"served": 1.0, "tokens": 1.0}, epochs=1, checkpoint_every=2)
    run(tmp_path, settings)
    (file,) = (tmp_path / "run" / "checkpoints").glob("*.pt")
    assert "token_head.linear.weight" in torch.load(file, weights_only=True)["model"]
    model, _, _ = training.load(file)
    other = new_model(build(RunConfig, settings))
    warm_start(other, file)
    assert torch.equal(other.positional_embedding, model.positional_embedding)


def test_tokens_are_counted_by_captions_once_and_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frequencies, "AT_ONCE", 7)
    curate = make_inputs(tmp_path, 20)["curate"]
    wanted, captions = np.zeros(VOCABULARY, np.int64), 0
    for row in rows_of(curate):
        for caption in row["captions"]:
            wanted[sorted(set(clip_encoder()(caption["text"])))] += 1
            captions += 1
    bundles = read_bundles(curate, SLOTS, Location.of(tmp_path / "index"))
    for attempt in ("counted", "read"):
        if attempt == "read":
            monkeypatch.setattr(frequencies, "count", None)
        found = token_frequencies(bundles)
        assert found.captions == captions
        assert np.array_equal(found.holding_V, wanted)
    monkeypatch.undo()
    (file,) = (tmp_path / "index").glob("counts-*")
    file.write_bytes(file.read_bytes()[:100])
    assert np.array_equal(token_frequencies(bundles).holding_V, wanted)  # counted again
    assert np.array_equal(token_frequencies(read_bundles(curate, SLOTS)).holding_V, wanted)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"tokens": 1.0}}, "teaches the image side alone"),
        ({"losses": {"tokens": 1.0, "diversity": 1.0}}, "teaches the image side alone"),
        (
            {"losses": {"tokens": 1.0, "o2m": 1.0}, "branches": 1, "freeze": ["image"], "warm_start": "x.pt"},
            "leaves nothing",
        ),
    ],
)
def test_recipes_in_which_it_teaches_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, changes, source="train")


def test_the_term_without_a_head_says_so() -> None:
    v, t, s = embeddings(3, B, 1, M)
    with pytest.raises(ConfigError, match="needs a model with a token head"):
        tokens(gather(v, t, MASK, s))
