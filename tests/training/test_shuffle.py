"""The order by blocks shows every image once an epoch, and reads remote shards about once for it, within the cache."""

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import build
from pipeline.errors import StoreError
from pipeline.ingest import shard_uris
from pipeline.shard_cache import ShardCache
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.training.conftest import make_inputs
from tests.training.test_batches import assert_equal
from tests.training.test_trainer import ALONE
from training.batches import BatchMaker
from training.bundles import read_bundles
from training.config import RunConfig
from training.index.blocks import Blocks, blocks_of
from training.loader import loader
from training.read_ahead import ReadAhead
from training.shuffle import Order
from training.trainer import train

Recipe = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of some three pictures each; nobody but the process that deals out samples has to know."""
    monkeypatch.setattr("training.index.blocks.BYTES", 6000)


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The bytes that are asked of each remote shard, and the requests."""
    found: Counter[str] = Counter()
    read, lock = Location.read_range, threading.Lock()

    def counted(self: Location, offset: int, size: int) -> bytes:
        data = read(self, offset, size)
        with lock:
            found[self.uri] += len(data)
            found["requests"] += 1
        return data

    monkeypatch.setattr(Location, "read_range", counted)
    return found


def remote(folder: Path, count: int) -> tuple[Any, dict[str, str]]:
    """Bundles, and their shards on a store."""
    inputs = make_inputs(folder, count)
    uris = {}
    for name, path in shard_uris(inputs["ingest"]).items():
        uris[name] = f"memory://{folder.name}/{name}.tar"
        Location.of(uris[name]).write(Path(path).read_bytes())
    return inputs["curate"], uris


def held(folder: Path) -> int:
    """The bytes of a cache, which threads may be at."""
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def maker(
    folder: Path, recipe: dict[str, Any], data: tuple[Any, dict[str, str]], limit: int = 10**8, **ranks: int
) -> BatchMaker:
    config = build(RunConfig, recipe)
    reader = ShardReader(data[1], ShardCache(folder / "cache", limit))
    bundles = read_bundles(data[0], config.slots, Location.of(folder / "index"))
    return BatchMaker(config, bundles, reader, canvas=36, context_length=32, **ranks)


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 60), st.integers(0, 9), st.data())
def test_by_blocks_an_epoch_shows_every_image_once_and_a_block_in_one_stretch(
    counts: list[int], window: int, seed: int, data: st.DataObject
) -> None:
    rows = sum(counts)
    block_S = np.array(data.draw(st.permutations(np.repeat(np.arange(len(counts)), counts).tolist())), np.int32)
    zeros = np.zeros(len(counts), np.int64)
    order = Order(rows, 1, 3, seed, Blocks(block_S, zeros, zeros, np.array(counts)), window)
    for epoch in range(3):
        shown = [int(order.batch(epoch * rows + place)[1][0]) for place in range(rows)]
        assert sorted(shown) == list(range(rows))
        for block, count in enumerate(counts):
            places = [place for place, row in enumerate(shown) if block_S[row] == block]
            assert places[-1] - places[0] < count + 2 * window + max(counts)
    whole = Order(rows, rows, 3, seed, order.blocks, window)  # the size of batches does not matter
    assert whole.batch(2)[1].tolist() == shown
    if rows > 20 and len(counts) > 3:
        assert shown != whole.batch(1)[1].tolist()


def test_blocks_hold_their_pictures_whole_and_do_not_overlap(tmp_path: Path, recipe: Recipe) -> None:
    data = remote(tmp_path, 40)
    bundles = maker(tmp_path, recipe(), data).bundles
    blocks = blocks_of(bundles)
    assert len(blocks.count_K) > 8
    assert np.bincount(blocks.block_S).tolist() == blocks.count_K.tolist()
    spans: dict[str, set[tuple[int, int]]] = {}
    for sample, (start, end) in enumerate(blocks.spans(np.arange(40)).tolist()):
        piece, row = bundles.sample(sample)
        assert start <= piece.offset[row] < piece.offset[row] + piece.size[row] <= end
        spans.setdefault(piece.shard_names[piece.shard[row]], set()).add((start, end))
    for of_shard in map(sorted, spans.values()):
        assert all(one[1] <= other[0] for one, other in pairwise(of_shard))
    first = [int(np.flatnonzero(blocks.block_S == block)[0]) for block in range(len(blocks.count_K))]
    assert first == sorted(first)


def test_an_epoch_reads_each_shard_once_within_the_cache(
    tmp_path: Path, recipe: Recipe, requested: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks of a node; the cache holds a quarter of the data."""
    monkeypatch.setattr("training.read_ahead.IMAGES", 12)
    monkeypatch.setattr("training.read_ahead.STEPS", 2)
    data = remote(tmp_path, 400)
    total = sum(Location.of(uri).size() for uri in data[1].values())
    settings = recipe(epochs=2, global_batch=8, shuffle_window=12)
    makers = [maker(tmp_path, settings, data, total // 4, rank=rank, ranks=2) for rank in range(2)]
    loaders = [loader(one, 0, workers=0, pin_memory=False) for one in makers]
    shown = []
    for step in range(100):
        for one in loaders:
            next(one)
        shown += makers[0].order.batch(step)[1].tolist()
        assert held(tmp_path / "cache") <= total // 4
        if step == 49:
            first_epoch = requested.copy()
    assert sorted(shown[:400]) == list(range(400)) == sorted(shown[400:])
    for uri in data[1].values():
        size = Location.of(uri).size()
        assert 0.6 * size < first_epoch[uri] < 1.2 * size  # the headers of a tar are not asked for
        assert requested[uri] < 2.4 * size
    assert requested["requests"] < 400  # of 800 pictures


def test_a_cache_that_holds_all_is_filled_once(tmp_path: Path, recipe: Recipe, requested: Counter[str]) -> None:
    data = remote(tmp_path, 40)
    for shuffle in ("blocks", "global"):
        batches = maker(tmp_path, recipe(epochs=4, shuffle=shuffle), data)
        assert len(list(loader(batches, 0, workers=0, pin_memory=False))) == 24
    assert sum(requested[uri] for uri in data[1].values()) == maker(tmp_path, recipe(), data).order.blocks.bytes


def test_global_order_of_more_than_the_cache_reads_picture_by_picture(
    tmp_path: Path, recipe: Recipe, requested: Counter[str]
) -> None:
    batches = maker(tmp_path, recipe(epochs=1, shuffle="global"), remote(tmp_path, 40), limit=20_000)
    list(loader(batches, 0, workers=0, pin_memory=False))
    assert requested["requests"] == 36
    assert not (tmp_path / "cache").exists()


def test_ranks_workers_and_resumes_give_the_batches_of_one_process(tmp_path: Path, recipe: Recipe) -> None:
    """By blocks, from remote shards and from local ones."""
    data, settings = remote(tmp_path, 60), recipe(shuffle="blocks", shuffle_window=10, epochs=2)
    expected = list(loader(maker(tmp_path, settings, data), 0, workers=0, pin_memory=False))
    assert len(expected) == 20
    for ranks in (2, 4):
        shares = [loader(maker(tmp_path, settings, data, rank=r, ranks=ranks), 3, 0, False) for r in range(ranks)]
        for whole, *parts in zip(expected[3:], *shares, strict=True):
            for name in ("image_BCSS", "box_B4", "mask_BM"):
                assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    local = (data[0], {name: str(tmp_path / "ingest" / f"{name}.tar") for name in data[1]})
    for workers, start in ((2, 0), (4, 7)):
        found = list(loader(maker(tmp_path, settings, local), start, workers, pin_memory=False))
        for one, other in zip(expected[start:], found, strict=True):
            assert_equal(one, other)


def test_auto_is_by_blocks_where_shards_are_remote(tmp_path: Path, recipe: Recipe) -> None:
    data = remote(tmp_path, 20)
    local = (data[0], {name: str(tmp_path / "ingest" / f"{name}.tar") for name in data[1]})
    assert maker(tmp_path, recipe(), data).order.window == 32768
    assert maker(tmp_path, recipe(), local).order.window is None
    assert maker(tmp_path, recipe(), local).order.facts == {}
    moved = (data[0], {name: f"memory://elsewhere/{name}.tar" for name in data[1]})
    assert maker(tmp_path, recipe(), data).order.facts == maker(tmp_path, recipe(), moved).order.facts != {}


def test_blocks_are_fetched_before_they_are_read(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[tuple[str, tuple[int, int]]] = []
    done = threading.Event()

    def fetch(_: ShardReader, shard: str, span: tuple[int, int]) -> None:
        fetched.append((shard, span))
        if len(fetched) == blocks:
            done.set()
        raise OSError("the store is gone")  # which whoever reads the block will say

    monkeypatch.setattr(ShardReader, "fetch", fetch)
    batches = maker(tmp_path, recipe(epochs=1), remote(tmp_path, 42))
    blocks = len(batches.order.blocks.count_K)  # type: ignore[union-attr]
    ahead = ReadAhead(batches, 0)
    ahead.share(0)
    assert done.wait(60)
    assert len(set(fetched)) == len(fetched) == blocks
    ahead.close()


def test_a_cache_too_small_for_the_window_is_said(
    tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    data = remote(tmp_path, 40)
    for rank, said in ((0, 1), (1, 0)):
        next(loader(maker(tmp_path, recipe(), data, limit=20_000, rank=rank, ranks=2), 0, 0, False))
        assert capsys.readouterr().err.count("train.shard_cache_gb is 2e-05") == said


def test_a_checkpoint_goes_on_in_its_own_order_only(tmp_path: Path, recipe: Recipe) -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StoppedError

    inputs = make_inputs(tmp_path, 20)

    def go_on(shuffle: str, on_checkpoint: Any = None) -> int:
        config = build(RunConfig, recipe(shuffle=shuffle, checkpoint_every=2))
        bundles, reader = read_bundles(inputs["curate"], config.slots), ShardReader(shard_uris(inputs["ingest"]))
        return train("t", config, bundles, reader, Location.of(tmp_path / "run"), ALONE, on_checkpoint).steps

    with pytest.raises(StoppedError):
        go_on("blocks", stop)
    with pytest.raises(StoreError, match="recipe shuffle is 'blocks' there and None here; data order is 'by blocks"):
        go_on("auto")
    assert go_on("blocks") == 9
