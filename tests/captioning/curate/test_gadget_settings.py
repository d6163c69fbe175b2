"""Every setting that a gadget reads decides its step: another setting, other verdicts; the same, nothing done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field
from small_workspace import caption, curate, ingest

from captioning.curate import gadgets
from captioning.curate.config import CurateConfig, with_sections
from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, Given, Known, in_order
from pipeline import schemas
from pipeline.config import Section, build
from pipeline.errors import ConfigError
from pipeline.workspace import Workspace

ROOT = Path(__file__).parents[3]
ORDER = [
    "clean", "reject", "ending", "length", "language", "unsafe", "off_topic",
    "boilerplate", "ground", "support", "duplicates", "select",
]  # fmt: skip


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = ingest(tmp_path_factory.mktemp("settings"), images=12)
    caption(workspace)
    return workspace


class LettersConfig(Section):
    """Settings of a gadget that somebody adds."""

    max: int = Field(default=100, description="most letters")


class LettersOfTexts(Gadget):
    """Drops long texts: all that a new gadget has to say."""

    name = "letters"
    settings = LettersConfig
    judges = "texts"
    after = "length"
    made_from = ("letters",)
    reasons: ClassVar[Mapping[str, str]] = {"too_many_letters": "more letters than are allowed"}

    def apply(self, draft: Draft) -> None:
        """Count letters."""
        for row in draft.open_rows():
            if len(draft.texts[row]) > self.config.max:
                draft.drop(row, self, "too_many_letters")


class LettersOfImages(LettersOfTexts):
    """The same among the gadgets of images."""

    judges = "images"
    after = "duplicates"


WithLetters = with_sections(CurateConfig, [LettersOfTexts])


@pytest.mark.parametrize(
    ("letters", "before"), [(LettersOfTexts, "unsafe"), (LettersOfImages, None)], ids=["texts", "images"]
)
def test_a_gadget_is_one_class_in_the_list(
    captioned: Workspace, monkeypatch: pytest.MonkeyPatch, letters: type[Gadget], before: str | None
) -> None:
    monkeypatch.setattr(gadgets, "GADGETS", in_order([*reversed(gadgets.GADGETS), letters]))
    names = [gadget.name for gadget in gadgets.GADGETS]
    assert names.index(letters.after) < names.index("letters") < (names.index(before) if before else len(names))
    assert [name for name in names if name != "letters"] == ORDER
    assert gadgets.meanings()["too_many_letters"] == "more letters than are allowed"
    manifests = [curate(captioned, build(WithLetters, {"letters": {"max": most}})) for most in (100, 15, 100)]
    kept = [manifest.counts["kept"] for manifest in manifests]
    assert kept[0] > kept[1] > 0
    assert kept[2] == kept[0], "the settings are part of what the step depends on"
    assert reasons(manifests[1])["too_many_letters"] == manifests[1].counts["dropped_by_gadget"]["letters"] > 0
    with pytest.raises(ConfigError, match=r"letters.max"):
        build(WithLetters, {"letters": {"max": "many"}})


def test_a_gadget_is_given_what_it_declares_and_nothing_else() -> None:
    class Greedy(LettersOfTexts):
        @classmethod
        def make(cls, given: Given) -> Greedy:
            return cls(given.settings["length"])

    with pytest.raises(KeyError, match="length"):
        Greedy.make(Given({"letters": LettersConfig()}, Known()))


@pytest.mark.parametrize("after", ["nothing", "select"])
def test_a_gadget_comes_after_one_of_its_pass(after: str) -> None:
    lost = type("Lost", (LettersOfTexts,), {"after": after})
    with pytest.raises(ValueError, match=f"letters comes after '{after}'"):
        in_order([*gadgets.GADGETS, lost])


def test_every_gadget_has_a_file_a_section_and_a_line_in_the_docs() -> None:
    lines = (ROOT / "docs" / "curation.md").read_text(encoding="utf8").splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    table = {row.split("`")[1]: row for row in rows}
    assert [row.split("`")[1] for row in rows if row.split("`")[1] in ORDER] == ORDER, "in their order"
    for gadget in gadgets.GADGETS:
        assert gadget.__module__ == f"captioning.curate.gadgets.{gadget.name}"
        assert CurateConfig.model_fields[gadget.name].annotation is gadget.settings
        assert table[gadget.name].rstrip(" |").endswith(" ".join(f"`{reason}`" for reason in gadget.reasons) or "–")


def test_settings_of_off_topic_decide_verdicts(captioned: Workspace) -> None:
    sections = ({}, {"perspectives": ["detail", "summary"]}, {"perspectives": ["detail"], "subject": "nouns"})
    counts = [dropped(captioned, "off_topic", {"off_topic": section}) for section in sections]
    assert len(set(counts)) == len(counts), counts


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


def test_what_decides_a_pass_is_what_its_gadgets_declare() -> None:
    config = build(CurateConfig, {"support": {"enabled": True}})
    assert set(gadgets.settings_of("texts", config)) == {
        "phrases", "clean", "reject", "ending", "length", "language", "unsafe", "off_topic",
    }  # fmt: skip
    assert set(gadgets.settings_of("images", config)) == {
        "boilerplate", "support", "duplicates", "select", "coverage", "length",
    }  # fmt: skip


def test_a_changed_selection_judges_no_text_again(captioned: Workspace) -> None:
    curate(captioned)
    folder = Path(captioned.folder("curate").uri)
    before = set(folder.glob("texts-*"))
    curate(captioned, build(CurateConfig, {"select": {"max_captions": 2}}))
    assert set(folder.glob("texts-*")) == before
