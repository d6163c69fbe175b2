"""Imported captions: only the gadgets that `curate.imported` names judge them; models' captions are judged by all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import world
from small_workspace import both_passes, curate, draft_of, reasons

from captioning.curate import gadgets
from captioning.curate.config import CurateConfig
from captioning.curate.corpus.score_histogram import ScoreHistogram
from captioning.curate.gadget import Gadget, run_gadgets
from captioning.curate.gadgets.support import Support, SupportConfig
from captioning.importing import IMPORTED
from pipeline import schemas
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.ingest import shard_images, shard_names
from pipeline.manifest import Manifest
from pipeline.workspace import Workspace

REFUSAL = "I'm sorry, but I can't help with that."


def judged(*rows: dict[str, Any], **sections: Any) -> list[str | None]:
    """The reasons of an image's captions."""
    config = build(CurateConfig, sections)
    draft = draft_of(*({"engine": "vllm", **row} for row in rows))
    run_gadgets(draft, both_passes(config), config.imported.gadgets)
    return reasons(draft)


def mine(text: str, **more: Any) -> dict[str, Any]:
    """An imported caption."""
    return {"text": text, "finish_reason": None, "engine": IMPORTED, **more}


def test_by_default_nothing_but_duplicates_is_looked_for() -> None:
    rows = [
        mine(REFUSAL, caption_id="1"),
        mine("Ein Boot auf dem Meer, und dahinter ein Turm aus Stein.", caption_id="2"),
        mine("Boat", granularity="paragraph", caption_id="3"),
        mine("boat!", granularity="paragraph", caption_id="4"),
        {"text": REFUSAL, "caption_id": "5"},
    ]
    assert judged(*rows) == [None, None, None, "duplicate", "refusal"]


def test_a_caption_of_a_model_can_repeat_an_imported_one() -> None:
    rows = [mine("A red boat.", caption_id="1"), {"text": "The image shows a red boat.", "caption_id": "2"}]
    assert judged(*rows) == [None, "duplicate"]
    assert judged(*rows, imported={"gadgets": []}) == [None, None], "nobody compares them"


def test_other_gadgets_judge_them_when_they_are_named() -> None:
    row = mine(REFUSAL)
    assert judged(row, imported={"gadgets": ["reject"]}) == ["refusal"]
    opener = draft_of(mine("The image shows a boat."))
    config = build(CurateConfig, {"imported": {"gadgets": ["clean"]}})
    run_gadgets(opener, both_passes(config), config.imported.gadgets)
    assert opener.texts == ["A boat."]


def test_selection_takes_none_away_and_does_not_count_them() -> None:
    rows = [mine(f"Caption number {number}.", caption_id=f"{number}") for number in range(4)]
    rows += [{"text": f"Another caption of a {thing}.", "caption_id": thing} for thing in ("boat", "cat", "dog")]
    limits = {"select": {"max_captions": 2}, "coverage": False}
    assert Counter(judged(*rows, **limits)) == {None: 6, "over_limit": 1}
    everybody = {"imported": {"gadgets": ["duplicates", "select"]}}
    assert Counter(judged(*rows, **limits, **everybody)) == {None: 2, "over_limit": 5}


def test_they_bear_witness_without_being_judged() -> None:
    main = mine("A horse.", caption_id="1", perspective="main_object")
    behind = {"text": "A horse stands by the sea.", "caption_id": "2", "perspective": "background"}
    assert judged(main, behind) == [None, "off_topic"], "the imported main object counts"
    support = Support(SupportConfig(min_others=1, max_unsupported=0.0), ("horse", "sea", "tower"), {})
    draft = draft_of(mine("A horse and a tower."), {"text": "A horse.", "engine": "vllm"})
    run_gadgets(draft, [support])
    assert reasons(draft) == [None, None], "the tower is in no other caption, and the horse is in one"
    run_gadgets(draft, [support], ["support"])
    assert reasons(draft) == ["unsupported", None]


def test_quantiles_of_scores_are_over_what_is_judged() -> None:
    draft = draft_of(mine("A boat."), {"text": "A cat.", "engine": "vllm"})
    counted = {}
    for imported in (False, True):
        statistic = ScoreHistogram(lambda _, rows: np.full(len(rows), 0.5, np.float32), "digest", imported)
        counted[imported] = sum(statistic.of_shard(draft)["captions"].to_pylist())
    assert counted == {False: 1, True: 2}


def test_gadgets_that_are_set_have_to_be_there() -> None:
    with pytest.raises(ConfigError, match=r"imported.gadgets.*'rejekt' is none of clean, reject, "):
        build(CurateConfig, {"imported": {"gadgets": ["rejekt"]}})
    config = build(CurateConfig, {"imported": {"gadgets": ["select", "reject", "select"]}})
    assert config.imported.gadgets == ("reject", "select"), "how they are written changes nothing"


def test_a_gadget_says_whether_it_judges_them_by_default() -> None:
    assert gadgets.judging("imported") == ("duplicates",)
    assert CurateConfig().imported.gadgets == ("duplicates",)
    assert all("model" in gadget.origins for gadget in gadgets.GADGETS)
    assert Gadget.origins == ("model",), "a new gadget judges models alone"


@pytest.fixture
def made(tmp_path: Path) -> Workspace:
    """Captions of a fake model and of a table."""
    workspace = world.workspace(tmp_path, images=8, shard_images=4)
    source = workspace.manifests("ingest")[0]
    images = [row for shard in shard_names(source) for row in shard_images(source, shard).to_pylist()]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"id": row["image_id"], "said": REFUSAL}) + "\n" for row in images))
    columns = {"image": "id", "text": "said"}
    table = {"name": "mine", "path": str(path), "columns": columns, "perspective": "detail"}
    world.caption(workspace, world.config(tables=[table]))
    return workspace


def test_through_the_stage(made: Workspace) -> None:
    assert reasons_of(curate(made))["refusal"] == 0
    first = {path.name for path in Path(made.folder("curate").uri).glob("texts-*")}
    strict = build(CurateConfig, {"imported": {"gadgets": ["duplicates", "reject"]}})
    assert reasons_of(curate(made, strict))["refusal"] == 8
    selecting = build(CurateConfig, {"imported": {"gadgets": ["duplicates", "select"]}})
    assert reasons_of(curate(made, selecting))["refusal"] == 0
    second = {path.name for path in Path(made.folder("curate").uri).glob("texts-*")}
    assert len(second - first) == 1, "who is selected decides nothing about texts"


def reasons_of(manifest: Manifest) -> Counter[str | None]:
    """What the verdicts say, by reason."""
    parts = manifest.select("verdicts/")
    return Counter(row for part in parts for row in manifest.read(part, schemas.VERDICTS)["reason"].to_pylist())
