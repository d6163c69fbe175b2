"""Every setting that a gadget reads decides its step: another setting, other verdicts; the same, nothing done."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from small_workspace import caption, curate, ingest

from captioning.curate.config import CurateConfig
from captioning.curate.draft import Draft
from captioning.curate.gadgets import order
from captioning.curate.reasons import Reason
from captioning.curate.settings import read_by
from pipeline import schemas
from pipeline.config import Section, build
from pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = ingest(tmp_path_factory.mktemp("settings"), images=12)
    caption(workspace)
    return workspace


class LettersConfig(Section):
    """Settings of a gadget that somebody adds."""

    max: int = 100


class WithLetters(CurateConfig):
    """The configuration with its section."""

    letters: LettersConfig = Field(default_factory=LettersConfig)


class Letters:
    """Drops long texts. Given its section, as docs/curation.md says."""

    name = "letters"
    reads: tuple[str, ...] = ()
    reasons = (Reason.TOO_LONG,)

    def __init__(self, config: Any) -> None:
        self.config = config

    def limit(self) -> int:
        return int(self.config.max)

    def apply(self, draft: Draft) -> None:
        for row in draft.open_rows():
            if len(draft.texts[row]) > self.limit():
                draft.drop(row, self, Reason.TOO_LONG)


class LettersOfAll(Letters):
    """The same, given the whole configuration, which it reads when it is applied."""

    def limit(self) -> int:
        return int(self.config.letters.max)


@pytest.mark.parametrize("step", ["text_gadgets", "image_gadgets"])
@pytest.mark.parametrize("make", [lambda config: Letters(config.letters), LettersOfAll], ids=["section", "whole"])
def test_a_gadget_that_is_added_serves_no_stale_verdicts(
    captioned: Workspace, monkeypatch: pytest.MonkeyPatch, step: str, make: Any
) -> None:
    known = getattr(order, step)
    monkeypatch.setattr(order, step, lambda config, *rest: (*known(config, *rest), make(config)))
    kept = [
        curate(captioned, build(WithLetters, {"letters": {"max": most}})).counts["kept"] for most in (100, 15, 100)
    ]
    assert kept[0] > kept[1] > 0
    assert kept[2] == kept[0]


def test_settings_of_off_topic_decide_verdicts(captioned: Workspace) -> None:
    sections = ({}, {"perspectives": ["detail", "summary"]}, {"perspectives": ["detail"], "subject": "nouns"})
    found = [dropped(captioned, "off_topic", {"off_topic": section}) for section in sections]
    assert len(set(found)) == len(found), found


@pytest.mark.parametrize(
    "change",
    [
        {"enabled": False},
        {"max_unsupported": 1.0},
        {"not_judged": ["detail", "summary", "nouns", "main_object", "background", "style"]},
        {"min_others": 50},
        {"min_images": 50},
    ],
    ids=lambda change: next(iter(change)),
)
def test_settings_of_support_decide_verdicts(captioned: Workspace, change: dict[str, Any]) -> None:
    support = {"enabled": True, "min_images": 1, "max_unsupported": 0.0}
    assert dropped(captioned, "unsupported", {"support": support}) > 0
    assert dropped(captioned, "unsupported", {"support": support | change}) == 0


def dropped(workspace: Workspace, reason: str, section: dict[str, Any]) -> int:
    """How many captions are dropped for this reason, as the verdicts say."""
    return reasons(curate(workspace, build(CurateConfig, section)))[reason]


def reasons(manifest: Any) -> Counter[str]:
    """How many captions were dropped for what, as the verdicts say."""
    parts = manifest.select("verdicts/")
    rows = [row for part in parts for row in schemas.read(manifest.location(part), schemas.VERDICTS).to_pylist()]
    return Counter(row["reason"] for row in rows if row["reason"])


def test_what_is_read_is_noted_and_what_is_kept_is_all() -> None:
    config = CurateConfig()
    assert set(read_by(config, lambda given: (Letters(given.length), given.ngram))) == {"length", "ngram"}
    whole = set(read_by(config, Letters))
    assert {"length", "select", "ground", "support"} <= whole
    assert "ray" not in whole
    assert set(read_by(config, lambda given: lambda: given)) == whole
    assert set(read_by(config, lambda given: given.model_dump())) == whole
    assert set(read_by(config, order.text_gadgets)) == {
        "phrases", "clean", "reject", "ending", "length", "language", "unsafe", "off_topic",
    }  # fmt: skip


def test_a_changed_selection_judges_no_text_again(captioned: Workspace) -> None:
    curate(captioned)
    folder = Path(captioned.folder("curate").uri)
    before = set(folder.glob("texts-*"))
    curate(captioned, build(CurateConfig, {"select": {"max_captions": 2}}))
    assert set(folder.glob("texts-*")) == before
