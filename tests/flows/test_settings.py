"""The reference of settings: complete, the same in docs and on the terminal, and true."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.cli import main
from flows.config import HolismConfig, load_config
from flows.settings import markdown
from pipeline.settings import groups

ROOT = Path(__file__).parents[2]


def test_the_page_in_docs_is_up_to_date() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page.rstrip() == markdown().rstrip(), "holism settings --markdown > docs/settings.md"


def test_every_section_and_every_key_says_what_it_is() -> None:
    found = list(groups(HolismConfig))
    assert [group.key for group in found if not group.meaning] == []
    assert [setting.key for group in found for setting in group.settings if not setting.meaning] == []


def test_defaults_are_those_of_the_section_where_they_stand() -> None:
    default = {setting.key: setting for group in groups(HolismConfig) for setting in group.settings}
    assert default["curate.length.word.max"].default == "30"
    assert default["curate.ray.enabled"].default == "false"
    assert default["caption.ray.enabled"].default == "true"
    assert default["caption.models"].default == "[demo_vlm]"
    assert default["workspace"].default == "required"
    assert default["train.slots"].default.startswith("[alt_text, detail, ")


def test_a_key_is_semantic_where_it_changes_results() -> None:
    kind = {setting.key: setting.operational for group in groups(HolismConfig) for setting in group.settings}
    assert kind["caption.max_pixels"] is False
    assert kind["caption.chunk_images"] is True
    assert kind["caption.ray.actors.cpus"] is True, "what is inside an operational section is operational"
    assert "max_num_seqs" in kind["caption.engine.options"]  # type: ignore[operator]
    assert kind["ingest.source (urls).timeout"] is True


@pytest.mark.parametrize(
    ("section", "there", "absent"),
    [
        ("caption.engine", "caption.engine.server.base_url", "caption.models"),
        ("ingest.source.path", "ingest.source (webdataset).path", "ingest.source (urls).timeout"),
        ("caption.models", "caption.models[].revision", "caption.mix"),
        ("train.lr", "highest learning rate", "train.epochs"),
    ],
)
def test_a_part_is_shown(section: str, there: str, absent: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", section]) == 0
    said = capsys.readouterr().out
    assert there in said
    assert f"{absent}:" not in said


def test_a_misspelt_section_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "caption.engin"]) == 2
    assert "did you mean caption.engine?" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["photos", "tars", "urls"])
def test_init_writes_a_configuration_that_can_be_planned(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = _sources(tmp_path)[kind]
    assert main(["init", kind, source]) == 0
    text = (tmp_path / "holism.yaml").read_text()
    assert text.count("#") > 10
    assert load_config("holism.yaml").ingest.source.path == source
    capsys.readouterr()
    arguments = ["holism.yaml", "--stages", "ingest,caption,curate", "--set", "caption.engine.kind=fake"]
    assert main(["plan", *arguments]) == 0
    assert "ingest    would run: it never ran in this workspace" in capsys.readouterr().out
    assert main(["verify"]) == 0
    assert "nothing to verify: no stage has a result" in capsys.readouterr().out
    assert main(["init", kind, source]) == 2
    assert "holism.yaml is there already" in capsys.readouterr().err
    assert (tmp_path / "holism.yaml").read_text() == text


def _sources(folder: Path) -> dict[str, str]:
    """A source of each kind, with names that YAML has to quote."""
    from PIL import Image

    (folder / "photos: # 1").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "photos: # 1" / "a.jpg")
    (folder / "tars").mkdir()
    (folder / "tars" / "0.tar").write_bytes(b"\0" * 10240)
    (folder / "links.csv").write_text("url,caption\nhttp://127.0.0.1/a.jpg,a\n")
    return {name: str(folder / file) for name, file in
            (("photos", "photos: # 1"), ("tars", "tars"), ("urls", "links.csv"))}  # fmt: skip
