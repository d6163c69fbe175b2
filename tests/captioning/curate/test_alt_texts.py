"""Alt texts: as ingest read them, or cleaned, filtered and counted by gadgets where `curate.alt_text` asks for it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import world
from small_workspace import curate

from captioning.curate import gadgets
from captioning.curate.config import CurateConfig
from captioning.curate.describe import describe
from pipeline import schemas
from pipeline.config import build, semantic
from pipeline.errors import ConfigError
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.stage import STAGE as INGEST
from pipeline.manifest import Manifest
from pipeline.stage import execute, resolve
from pipeline.workspace import Workspace

WRITTEN = [  # several rows of a picture: each has an alt text of its own
    ("000.png", "  Red   boat, 2 for sale "),
    ("000.png", "Ein rotes Boot auf dem Meer, und dahinter steht ein alter Turm aus Stein."),
    ("001.png", "The image shows a &amp; green <b>bell</b>."),
    ("001.png", "word " * 61),
    ("002.png", "free porn"),
    ("003.png", "<br>"),
]
ON = {"alt_text": {"enabled": True}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Five pictures, of which the last has no alt text, with captions of the fake engine."""
    root = tmp_path_factory.mktemp("alt_texts")
    folder = world.pictures(root / "pictures", 5)
    with open(folder / "captions.csv", "w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows([("file", "caption"), *WRITTEN])
    workspace = Workspace(str(root / "ws"))
    source = {"kind": "folder", "path": str(folder), "captions": "captions.csv"}
    config = build(IngestConfig, {"source": source, "shard_images": 3, "workers": 1})
    execute(resolve([INGEST], {"ingest": config}, workspace)["ingest"], workspace)
    world.caption(workspace, world.config())
    return workspace


def alts(manifest: Manifest) -> list[str]:
    """The alt texts in bundles."""
    parts = [manifest.read(part, schemas.BUNDLES, ["captions"]) for part in manifest.select("bundles/")]
    entries = [entry for part in parts for captions in part["captions"].to_pylist() for entry in captions]
    return sorted(entry["text"] for entry in entries if entry["source"] == "alt")


def run(made: Workspace, **sections: Any) -> Manifest:
    return curate(made, build(CurateConfig, sections))


def test_by_default_they_stay_as_they_are(made: Workspace) -> None:
    manifest = run(made)
    assert alts(manifest) == sorted(" ".join(text.split()) for _, text in WRITTEN)
    assert "alt_texts" not in manifest.counts
    assert not any("alt text" in line for line in describe(manifest))


def test_gadgets_clean_filter_and_count_them(made: Workspace) -> None:
    manifest = run(made, **ON)
    assert alts(manifest) == ["A & green bell.", "Red boat, 2 for sale"]
    counts = manifest.counts
    assert counts["alt_text_reasons"] == {"too_long": 1, "too_short": 1, "language": 1, "unsafe": 1}
    assert (counts["alt_texts"], counts["alt_texts_kept"], counts["alt_texts_dropped"]) == (6, 2, 4)
    assert counts["alt_texts_cleaned"] == 1
    line = next(line for line in describe(manifest) if "alt text" in line)
    assert line.startswith(
        "kept 2 of 6 alt texts (33.3 %), 1 of them cleaned; dropped: language 1 (16.7 %), too long 1"
    )
    assert {name: value for name, value in counts.items() if name in CAPTIONS} == {
        name: run(made).counts[name] for name in CAPTIONS
    }, "captions are judged as ever"


CAPTIONS = ("captions", "kept", "dropped", "reasons", "images")


def test_gadgets_and_length_are_settings(made: Workspace) -> None:
    short = run(made, alt_text={"enabled": True, "gadgets": ["length"]}, length={"alt_text": {"max": 4}})
    assert short.counts["alt_text_reasons"] == {"too_long": 4}
    cleaned = run(made, alt_text={"enabled": True, "gadgets": ["clean"]})
    assert cleaned.counts["alt_text_reasons"] == {"empty": 1}, "what nobody dropped and has no words left"
    both = run(made, alt_text={"enabled": True, "gadgets": ["clean", "reject"]})
    assert both.counts["alt_text_reasons"] == {"empty": 1, "repetition": 1}
    with pytest.raises(ConfigError, match=r"alt_text.gadgets.*'select' is none of clean, reject"):
        build(CurateConfig, {"alt_text": {"gadgets": ["select"]}})


def test_it_decides_bundles_and_no_texts_again(made: Workspace) -> None:
    folder = Path(made.folder("curate").uri)
    run(made)
    before = {path.name for path in folder.iterdir()}
    run(made, alt_text={"enabled": True, "gadgets": ["unsafe"]})
    new = {path.name for path in folder.iterdir()} - before
    assert [name.split("-")[0] for name in new] == ["verdicts"]


def test_a_default_is_no_part_of_what_decides() -> None:
    config = semantic(CurateConfig())
    assert "alt_text" not in config
    assert "alt_text" not in config["length"]
    assert "alt_text" in semantic(build(CurateConfig, ON))


def test_a_gadget_says_whether_it_judges_them_by_default() -> None:
    assert gadgets.judging("alt_text") == ("clean", "length", "language", "unsafe")


def test_images_are_told_from_rows(made: Workspace) -> None:
    first = describe(run(made))[0]
    assert first.endswith("for each of 7 rows of 5 images")
