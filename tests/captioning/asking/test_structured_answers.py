"""Structured answers with the fake engine: one question, a caption for every field of its JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from captioning.engines.base import Answer, Request
from captioning.engines.child import ChildEngine
from captioning.store import shard_captions
from pipeline.ingest import shard_names
from tests.captioning import world

STRUCTURED = {"set": "holism", "only": ["everything"]}


def test_a_structured_answer_becomes_a_caption_for_every_field(
    tmp_path: Path, asked: Counter[tuple[str, str]]
) -> None:
    made = world.workspace(tmp_path, images=5)
    manifest = world.caption(made, world.config(prompts=STRUCTURED))
    assert asked.total() == 5
    rows = world.rows(manifest, made)
    assert len(rows) == len({row["caption_id"] for row in rows}) == 5 * 16
    wholes = {row["caption_id"]: row for row in rows if row["prompt_id"] == "everything"}
    fields = [row for row in rows if row["prompt_id"] != "everything"]
    assert all(json.loads(wholes[row["parent_id"]]["text"])[row["prompt_id"]] == row["text"] for row in fields)
    assert {row["granularity"] for row in fields if row["prompt_id"] == "nouns"} == {"word"}
    assert sum(row["output_tokens"] for row in fields) == 0 < sum(row["output_tokens"] for row in wholes.values())
    source = made.manifests("ingest")[0]
    names = {
        row["prompt_id"]
        for shard in shard_names(source)
        for row in shard_captions(manifest, shard, structured=False).to_pylist()
    }
    assert names == {row["prompt_id"] for row in fields}


def test_a_structured_answer_that_is_cut_off_is_an_error_of_every_field(tmp_path: Path) -> None:
    made = world.workspace(tmp_path, images=3)
    manifest = world.caption(made, world.config(prompts=STRUCTURED, sampling={"max_tokens": 20}))
    bad = [row for row in world.rows(manifest, made) if row["status"] == "error"]
    assert len(bad) == 3 * 15
    assert {row["error"] for row in bad} == {"the structured answer is not JSON (it was cut off at the token budget)"}
    assert "45 of 48 captions failed" in manifest.warnings[0]


def test_an_unreadable_structured_answer_is_asked_for_again(
    tmp_path: Path, asked: Counter[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.workspace(tmp_path, images=4)
    unlucky = world.image_ids(made)[2]
    submit = ChildEngine.submit

    def broken(self: ChildEngine, requests: Sequence[Request]) -> list[Future[Answer]]:
        futures = submit(self, requests)
        if requests[0].image_id != unlucky:
            return futures
        torn = Future[Answer]()
        torn.set_result(Answer("{ no", 1, 0, 1, "stop"))
        return [torn] * len(futures)

    with monkeypatch.context() as patched:
        patched.setattr(ChildEngine, "submit", broken)
        world.caption(made, world.config(prompts=STRUCTURED))
    before = world.rows(made.manifests("caption")[0], made)
    assert {row["image_id"] for row in before if row["status"] == "error"} == {unlucky}
    asked.clear()
    manifest = world.caption(made, world.config(prompts=STRUCTURED), retry_failed=True)
    assert [image for image, _ in asked] == [unlucky], "one question, about the image that failed"
    rows = world.rows(manifest, made)
    assert len(rows) == len(before)
    assert {row["status"] for row in rows} == {"ok"}
    old = {row["caption_id"]: row["text"] for row in before if row["image_id"] != unlucky}
    assert {row["caption_id"]: row["text"] for row in rows if row["image_id"] != unlucky} == old
