"""Regeneration rounds: only images with too little diversity are asked again, additively, and never twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_workspace import ingest, newest

from captioning.browse.catalog import Catalog
from captioning.config import CaptionConfig
from captioning.curate.config import CurateConfig
from captioning.curate.regenerate import SERVICE, KeptCaptions
from captioning.curate.stage import STAGE as CURATE
from captioning.rounds import ImageList, Round
from captioning.stage import STAGE as CAPTION
from captioning.stage import run_round
from captioning.store import shard_captions
from pipeline.cluster.config import ClusterConfig
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.ingest import shard_images, shard_names
from pipeline.manifest import Manifest
from pipeline.stage import StageRun

PROMPTS = 7


class World:
    """A workspace with captions of the fake engine, which keeps a ledger of what it was asked."""

    def __init__(self, root: Path, **caption: Any) -> None:
        self.workspace = ingest(root, images=12)
        self.ledger = root / "ledger.txt"
        engine = {"kind": "fake", "fake": {"ledger": str(self.ledger)}}
        self.config = build(CaptionConfig, {"engine": engine, "ray": {"enabled": False}, **caption})
        self.images = self.workspace.manifests("ingest")[0]
        outcome = CAPTION.run(StageRun(self.config, {"ingest": self.images}, self.workspace, "f" * 64))
        self.captions = Manifest(
            "caption", "f" * 64, 1, {}, {}, outcome.store, tuple(outcome.parts), outcome.counts, outcome.detail
        )
        self.workspace.save(self.captions)
        self.asked: list[Round] = []

    def again(self, further: Round, retry_failed: bool = False) -> Manifest:
        self.asked.append(further)
        return run_round(self.config, self.images, self.workspace, further, ClusterConfig(), retry_failed=retry_failed)

    def curate(
        self,
        services: dict[str, Callable[[Round, bool], Manifest]] | None = None,
        *,
        retry_failed: bool = False,
        **regenerate: Any,
    ) -> Any:
        config = build(CurateConfig, {"regenerate": regenerate, "duplicates": {"max_similarity": 1}})
        inputs = {"ingest": self.images, "caption": self.captions}
        services = {SERVICE: self.again} if services is None else services
        return CURATE.run(StageRun(config, inputs, self.workspace, "c" * 64, retry_failed, services))

    def questions(self) -> int:
        """How many questions the engine was asked so far."""
        return sum(int(line.split()[1]) for line in self.ledger.read_text().splitlines())


def rows_of(manifest: Manifest) -> list[dict[str, Any]]:
    """All captions of a manifest."""
    shards = {part.detail["shard"] for part in manifest.parts}
    return [row for shard in sorted(shards) for row in shard_captions(manifest, shard).to_pylist()]


def test_images_under_the_floor_are_asked_again_in_other_words(tmp_path: Path) -> None:
    world = World(tmp_path)
    outcome = world.curate(rounds=2, max_similarity=0.0, temperature=0.7, temperature_step=0.2)
    assert [(asked.number, asked.temperature) for asked in world.asked] == [(1, 0.7), (2, pytest.approx(0.9))]
    first = {(row["key"], row["prompt_id"]): row for row in rows_of(world.captions)}
    for number, manifest in enumerate(world.workspace.manifests("round")[::-1], 1):
        rows = rows_of(manifest)
        assert {row["image_id"] for row in rows} == {i for i in _ids(world) if i in world.asked[number - 1].images}
        assert {row["sample_index"] for row in rows} == {number}
        assert all(json.loads(row["sampling"])["temperature"] == world.asked[number - 1].temperature for row in rows)
        assert all(row["paraphrase"] == number for row in rows)
        assert all(row["prompt_hash"] != first[row["key"], row["prompt_id"]]["prompt_hash"] for row in rows)
    assert outcome.counts["captions"] == len(first) + sum(len(rows_of(m)) for m in world.workspace.manifests("round"))
    assert outcome.detail["rounds"] == [m.fingerprint for m in world.workspace.manifests("round")[::-1]]


def test_what_a_round_gained_is_in_the_counts(tmp_path: Path) -> None:
    world = World(tmp_path)
    (gained,) = world.curate(rounds=1, max_similarity=0.0).counts["rounds"]
    assert (gained["round"], gained["images"]) == (1, world.asked[0].images.count)
    assert gained["captions_after"] >= gained["captions_before"] > 0
    assert gained["similarity_before"] > 0


def test_nobody_is_asked_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    before = world.questions()
    first = world.curate(rounds=1, max_similarity=0.0)
    paid = world.questions()
    assert paid - before == world.asked[0].images.count * PROMPTS
    again = world.curate(rounds=1, max_similarity=0.0)
    assert world.questions() == paid, "the rerun finds the round in the store"
    assert [part.digest for part in again.parts] == [part.digest for part in first.parts]


def test_what_fails_in_a_round_is_said_and_can_be_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    whole, broken = world.config, _ids(world)[3]
    engine = {"kind": "fake", "fake": {"ledger": str(world.ledger), "raise_on": [broken]}}
    world.config = build(CaptionConfig, {"engine": engine, "ray": {"enabled": False}})
    failed = world.curate(rounds=1, max_similarity=0.0)
    assert failed.counts["reasons"]["error"] == PROMPTS
    (warning,) = (warning for warning in failed.warnings if "failed" in warning)
    assert warning.startswith(f"round 1: {PROMPTS} of ")
    world.config = whole
    paid = world.questions()
    assert world.curate(rounds=1, max_similarity=0.0).warnings == failed.warnings
    assert world.questions() == paid, "what failed is not asked again unless that is wanted"
    mended = world.curate(rounds=1, max_similarity=0.0, retry_failed=True)
    assert world.questions() == paid + PROMPTS
    assert "error" not in mended.counts["reasons"]
    assert not [warning for warning in mended.warnings if "failed" in warning]


def test_a_floor_that_no_image_can_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"regenerate\.min_captions is 13, but select\.max_captions keeps no more"):
        build(CurateConfig, {"regenerate": {"rounds": 1, "min_captions": 13}})
    build(CurateConfig, {"regenerate": {"min_captions": 13}})


def test_enough_diversity_asks_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    paid = world.questions()
    outcome = world.curate(rounds=3, max_similarity=1.0, min_captions=1)
    assert (world.asked, world.questions(), "rounds" in outcome.counts) == ([], paid, False)


def test_only_some_images_leave_the_others_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    chosen = _ids(world)[2:5]
    images = ImageList.write(world.workspace.folder("caption"), [*chosen, chosen[0]])
    assert images.count == 3
    rows = rows_of(world.again(Round(1, images, 1.0)))
    assert sorted({row["image_id"] for row in rows}) == sorted(chosen)
    assert len(rows) == 3 * PROMPTS
    assert world.again(Round(1, images, 1.0)).parts == world.workspace.manifests("round")[0].parts


def test_the_browser_shows_what_was_written_in_rounds(tmp_path: Path) -> None:
    world = World(tmp_path)
    outcome = world.curate(rounds=1, max_similarity=0.0)
    parts, inputs = tuple(outcome.parts), {"caption": world.captions.digest}
    world.workspace.save(
        Manifest("curate", "c" * 64, 2, {}, inputs, outcome.store, parts, outcome.counts, outcome.detail)
    )
    shown = Catalog(world.workspace, lambda: newest(world.workspace)).current()
    (row,) = shown.rows("SELECT count(*) AS captions, count(*) FILTER (verdict != 'open') AS judged FROM captions")
    captions, judged = row["captions"], row["judged"]
    assert captions == judged == outcome.counts["captions"] > len(rows_of(world.captions))


def test_a_run_that_cannot_ask_again_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holism curate CONFIG, or set curate\.regenerate\.rounds=0"):
        World(tmp_path).curate(services={}, rounds=1, max_similarity=0.0)


@pytest.mark.parametrize(
    ("kept", "too_little"),
    [
        (KeptCaptions(3, 0.6), True),
        (KeptCaptions(3, 0.5), False),
        (KeptCaptions(1, None), True),
        (KeptCaptions(0, None), True),
    ],
)
def test_the_floor(kept: KeptCaptions, too_little: bool) -> None:
    assert kept.too_little(CurateConfig().regenerate) == too_little


def _ids(world: World) -> list[str]:
    tables = [shard_images(world.images, shard, ["image_id", "status"]) for shard in shard_names(world.images)]
    return [row["image_id"] for table in tables for row in table.to_pylist() if row["status"] == "ok"]
