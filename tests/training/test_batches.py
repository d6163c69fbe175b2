"""Batches follow from their number alone, hold what the bundles hold, and count what cannot be decoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.config import build
from pipeline.errors import ConfigError, MissingInputError
from pipeline.ingest import shard_uris
from pipeline.shards import ShardReader
from tests.training.conftest import captions_of, make_inputs
from training.augment import crop_and_normalise
from training.batches import Batch, BatchMaker, draw_captions
from training.bundles import read_bundles
from training.config import RunConfig
from training.crops import draw_crop
from training.loader import loader
from training.shuffle import Order
from training.text import tokenize

Recipe = Callable[..., dict[str, Any]]


def make(
    folder: Path, recipe: dict[str, Any], count: int = 20, damaged: tuple[int, ...] = (), **ranks: int
) -> BatchMaker:
    config = build(RunConfig, recipe)
    inputs = make_inputs(folder, count, damaged)
    reader = ShardReader(shard_uris(inputs["ingest"]))
    return BatchMaker(
        config, read_bundles(inputs["curate"], config.slots), reader, canvas=36, context_length=32, **ranks
    )


def picture_of(batches: BatchMaker, row: int) -> int:
    """Which of the pictures a row is; rows are in the order of the pictures' ids."""
    return int(batches.bundles.key(row).removesuffix(".jpg"))


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.step == other.step
    for name in ("image_BCSS", "box_B4", "place_P", "text_P", "mask_BM"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert len(one.texts) == len(other.texts)
    assert all(torch.equal(a, b) for a, b in zip(one.texts, other.texts, strict=True))


def texts_by_place(batch: Batch) -> dict[int, tuple[int, ...]]:
    """The tokens at each place of the flattened (B · M), end token last."""
    flat = [tuple(row[: int(row.argmax()) + 1].tolist()) for group in batch.texts for row in group]
    return {int(place): flat[int(text)] for place, text in zip(batch.place_P, batch.text_P, strict=True)}


def test_any_number_of_workers_gives_the_same_batches_from_any_step(tmp_path: Path, recipe: Recipe) -> None:
    batches = make(tmp_path, recipe(captions_per_image=2))
    alone = list(loader(batches, 0, workers=0, pin_memory=False))
    assert len(alone) == 9  # three epochs of three full batches
    for start, workers in ((0, 2), (4, 1), (5, 0)):
        again = list(loader(batches, start, workers=workers, pin_memory=False))
        assert len(again) == 9 - start
        for one, other in zip(alone[start:], again, strict=True):
            assert_equal(one, other)


def test_ranks_share_the_batch_of_one_process(tmp_path: Path, recipe: Recipe) -> None:
    whole = make(tmp_path, recipe())[4]
    shares = [make(tmp_path, recipe(), rank=rank, ranks=2)[4] for rank in range(2)]
    for name in ("image_BCSS", "box_B4", "mask_BM"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(whole, name))


@pytest.mark.parametrize("ranks", [4, 5, 6])
def test_any_number_of_ranks_up_to_the_batch_shares_it(tmp_path: Path, recipe: Recipe, ranks: int) -> None:
    whole = make(tmp_path, recipe())[4]
    shares = [make(tmp_path, recipe(), rank=rank, ranks=ranks)[4] for rank in range(ranks)]
    sizes = [len(share.image_BCSS) for share in shares]
    assert (sum(sizes), max(sizes) - min(sizes)) == (6, 0 if ranks == 6 else 1)
    for name in ("image_BCSS", "box_B4", "mask_BM"):
        assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(whole, name))
    texts = [text for share in shares for _, text in sorted(texts_by_place(share).items())]
    assert texts == [text for _, text in sorted(texts_by_place(whole).items())]


def test_ranks_that_come_and_go_see_the_samples_of_one_process(tmp_path: Path, recipe: Recipe) -> None:
    """One rank, then two, four and one again, each going on where the last stopped, across the borders of epochs."""
    settings = recipe(epochs=40, captions_per_image=2)
    expected = list(loader(make(tmp_path, settings), 0, workers=0, pin_memory=False))
    assert len(expected) == 120
    for ranks, first, end in ((1, 0, 29), (2, 29, 50), (4, 50, 100), (1, 100, 120)):
        makers = [make(tmp_path, settings, rank=rank, ranks=ranks) for rank in range(ranks)]
        for step in range(first, end):
            shares = [maker[step] for maker in makers]
            for name in ("image_BCSS", "box_B4", "mask_BM"):
                assert torch.equal(
                    torch.cat([getattr(share, name) for share in shares]), getattr(expected[step], name)
                )
            texts = [text for share in shares for _, text in sorted(texts_by_place(share).items())]
            assert texts == [text for _, text in sorted(texts_by_place(expected[step]).items())]


def test_more_ranks_than_images_in_a_batch_are_refused(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="global_batch is 6, which leaves no image for some of 7 ranks"):
        make(tmp_path, recipe(), rank=0, ranks=7)


def test_slots_hold_a_caption_of_their_own_image_and_perspective(tmp_path: Path, recipe: Recipe) -> None:
    batches = make(tmp_path, recipe())
    seen = set()
    for step in range(9):
        batch = batches[step]
        _, rows = batches.order.batch(step)
        texts = texts_by_place(batch)
        assert len(batch.texts) <= 3
        for b, row in enumerate(rows.tolist()):
            for m, perspective in enumerate(("alt_text", "detail", "style")):
                captions = captions_of(picture_of(batches, row))
                fitting = {tokenize(c["text"], 32) for c in captions if c["perspective"] == perspective}
                assert bool(batch.mask_BM[b, m]) == bool(fitting)
                if fitting:
                    assert texts[b * 3 + m] in fitting
                    seen.add(texts[b * 3 + m])
    both_details = {tokenize(c["text"], 32) for c in captions_of(4) if c["perspective"] == "detail"}
    assert both_details & seen


@pytest.mark.parametrize(("weights", "share"), [([3.0, 1.0], 0.75), ([0.0, 2.0], 0.0), ([1.0, 0.0], 1.0)])
def test_captions_of_a_slot_are_drawn_by_weight(weights: list[float], share: float) -> None:
    slot, weight = np.zeros(2, np.int16), np.array(weights, np.float32)
    drawn = [draw_captions(slot, weight, 1, None, np.random.default_rng(seed)) for seed in range(400)]
    assert {len(captions) for captions in drawn} == {1}
    assert np.mean([captions[0] == (0, 0) for captions in drawn]) == pytest.approx(share, abs=0.07 * (0 < share < 1))


def test_captions_of_no_weight_are_never_drawn() -> None:
    assert draw_captions(np.zeros(2, np.int16), np.zeros(2), 1, None, np.random.default_rng(0)) == []


def test_captions_are_drawn_by_cumulated_weight_in_float64() -> None:
    """Written out in numpy: other draws would be other batches."""
    rng = np.random.default_rng(0)
    for seed in range(200):
        slot = rng.integers(0, 5, size=rng.integers(0, 12)).astype(np.int16)
        weight = rng.choice([0.0, 0.1, 0.3, 1.0, 7.0], size=len(slot)).astype(np.float32)
        uniform, expected = np.random.default_rng(seed).random(5), []
        for m in np.unique(slot).tolist():
            candidates = np.flatnonzero(slot == m)
            upto = np.cumsum(weight[candidates], dtype=np.float64)
            if upto[-1] > 0:
                place = int(np.searchsorted(upto, uniform[m] * upto[-1], side="right"))
                expected.append((m, int(candidates[min(place, len(candidates) - 1)])))
        assert draw_captions(slot, weight, 5, None, np.random.default_rng(seed)) == expected


def test_each_image_gets_a_crop_of_its_own_in_each_epoch(tmp_path: Path, recipe: Recipe) -> None:
    batches = make(tmp_path, recipe(crop_scale=[0.3, 0.5]), damaged=(3,))
    boxes = {}
    for step in range(9):
        batch, (epoch, rows) = batches[step], batches.order.batch(step)
        for row, box in zip(rows.tolist(), batch.box_B4, strict=True):
            assert 0.3 <= float(box[2] * box[3]) <= 0.5 or picture_of(batches, row) == 3
            boxes[epoch, row] = tuple(box.tolist())
    readable = [box for (_, row), box in boxes.items() if picture_of(batches, row) != 3]
    assert len(set(readable)) == len(readable)


def test_shared_texts_are_encoded_once(tmp_path: Path, recipe: Recipe) -> None:
    batch = make(tmp_path, recipe(global_batch=18))[0]
    encoded = [tuple(row.tolist()) for group in batch.texts for row in group]
    assert len(encoded) == len(set(encoded)) < len(batch.place_P) == int(batch.mask_BM.sum())


def test_captions_per_image_draws_that_many(tmp_path: Path, recipe: Recipe) -> None:
    batches = make(tmp_path, recipe(captions_per_image=1))
    masks = torch.cat([batches[step].mask_BM for step in range(9)])
    assert (masks.sum(dim=1) == 1).all()
    assert masks.any(dim=0).all()  # not always the same slot


def test_undecodable_images_are_counted_and_take_no_part(tmp_path: Path, recipe: Recipe) -> None:
    batches = make(tmp_path, recipe(), damaged=(3, 11))
    bad = 0
    for step in range(3):
        batch = batches[step]
        _, rows = batches.order.batch(step)
        for b, row in enumerate(rows.tolist()):
            assert bool(batch.mask_BM[b].any()) == (picture_of(batches, row) not in (3, 11))
        bad += len(batch.unreadable)
        assert all("000" in text or "0011" in text for text in batch.unreadable)
    assert bad == sum(picture_of(batches, row) in (3, 11) for step in range(3) for row in batches.order.batch(step)[1])


def test_a_shard_that_cannot_be_read_is_no_damaged_picture(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a store that fails would have a run train on nothing to its end."""
    batches = make(tmp_path, recipe())

    def fail(*_: Any) -> bytes:
        raise OSError("input/output error")

    monkeypatch.setattr(ShardReader, "read", fail)
    with pytest.raises(OSError, match="input/output error"):
        batches[0]


def test_images_without_captions_for_any_slot_are_dropped_and_counted(tmp_path: Path, recipe: Recipe) -> None:
    config = build(RunConfig, recipe(slots=["style"]))
    bundles = read_bundles(make_inputs(tmp_path, 20)["curate"], config.slots)
    assert (len(bundles), bundles.dropped) == (13, 7)
    with pytest.raises(MissingInputError, match="they hold alt_text, detail, style"):
        read_bundles(make_inputs(tmp_path, 20)["curate"], build(RunConfig, recipe(slots=["mood"])).slots)


def test_a_granularity_goes_before_any_granularity(tmp_path: Path, recipe: Recipe) -> None:
    slots = [
        {"name": "any", "perspective": "detail"},
        {"name": "long", "perspective": "detail", "granularity": "paragraph"},
    ]
    bundles = read_bundles(make_inputs(tmp_path, 6)["curate"], build(RunConfig, recipe(slots=slots)).slots)
    assert bundles.captions == (0, 12)


def test_too_large_a_batch_is_named(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="global_batch is 64, but only 20 images"):
        make(tmp_path, recipe(global_batch=64))


@given(st.integers(2, 50), st.integers(1, 4), st.integers(0, 9), st.data())
def test_an_epoch_shows_no_image_twice(rows: int, epochs: int, seed: int, data: st.DataObject) -> None:
    order = Order(rows, data.draw(st.integers(1, rows)), epochs, seed)
    for epoch in range(epochs):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        shown = [row for step in steps for row in order.batch(step)[1].tolist()]
        assert len(set(shown)) == len(shown) == rows // order.global_batch * order.global_batch
        assert {order.batch(step)[0] for step in steps} == {epoch}


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)), st.integers(0, 99))
def test_crops_lie_inside_with_their_share(width: int, height: int, ends: tuple[float, float], seed: int) -> None:
    scale = (min(ends), max(ends))
    left, top, w, h = draw_crop(width, height, scale, np.random.default_rng(seed))
    assert min(left, top) >= 0
    assert left + w <= 1 + 1e-9
    assert top + h <= 1 + 1e-9
    assert 3 / 4 - 1e-9 <= (w * width) / (h * height) <= 4 / 3 + 1e-9
    # An image whose aspect allows no such crop is kept as far as it goes, so one side whole.
    assert scale[0] - 1e-9 <= w * h <= scale[1] + 1e-9 or max(w, h) == 1


def test_the_whole_box_is_a_plain_resize_and_a_half_box_is_a_half() -> None:
    image = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    whole, half = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.5, 0.0, 0.5, 1.0]])
    out = crop_and_normalise(image, whole.repeat(2, 1), 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    torch.testing.assert_close(out, image.float() / 255)
    out = crop_and_normalise(image, half.repeat(2, 1), 16, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5))
    right = F.interpolate(image[..., 8:].float() / 255, size=(16, 16), mode="bilinear", align_corners=False)
    expected = (right - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.5
    # Border handling differs at the cut, where one sees the neighbouring pixel and the other does not.
    torch.testing.assert_close(out[..., 1:], expected[..., 1:], rtol=1e-4, atol=1e-4)
