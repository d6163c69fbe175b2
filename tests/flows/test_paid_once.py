"""An answer is never paid for twice, whatever becomes of the pictures: walked through the command line.

The fake engine keeps a ledger: a line a call, with the number of questions.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from captioning.browse.catalog import Catalog
from captioning.store import shard_captions
from flows.browse import results
from flows.cli import main
from flows.run import Session
from pipeline import schemas
from pipeline.ingest import shard_images, shard_names
from tests.pipeline.images import picture

PICTURES, PROMPTS = 12, 7


class Project:
    """A folder of pictures with alt texts, and the command line over it."""

    def __init__(self, root: Path) -> None:
        self.root, self.photos = root, root / "photos"
        self.photos.mkdir(parents=True)
        for number in range(PICTURES):
            (self.photos / f"{number:02d}.jpg").write_bytes(picture(number))
            (self.photos / f"{number:02d}.txt").write_text(f"photo {number}")
        self.ledger = root / "ledger"
        self.config = root / "holism.yaml"
        self.source: dict[str, Any] = {"kind": "folder", "path": str(self.photos)}

    def run(self, *arguments: str, stages: str = "ingest,caption", **settings: Any) -> int:
        """Run stages; returns how many questions were paid for."""
        caption = {
            "engine": {"kind": "fake", "fake": {"ledger": str(self.ledger)}},
            "models": ["fake"],
            "chunk_images": 4,
            "ray": {"enabled": False},
            **settings.pop("caption", {}),
        }
        ingest = {"source": self.source, "workers": 1, "shard_images": 5, **settings}
        workspace = str(self.root / "ws")
        self.config.write_text(yaml.safe_dump({"workspace": workspace, "ingest": ingest, "caption": caption}))
        before = self.paid()
        assert main(["run", str(self.config), "--stages", stages, *arguments]) == 0
        return self.paid() - before

    def paid(self) -> int:
        """All questions so far."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return sum(int(line.split()[1]) for line in lines)

    def captions(self) -> dict[tuple[str, str], int]:
        """How many captions each (shard, key) has under the present configuration."""
        found = Session.open(str(self.config)).resolve()
        ingest, captions = found["ingest"].manifest, found["caption"].manifest
        assert ingest is not None
        assert captions is not None
        counts: dict[tuple[str, str], int] = {}
        for shard in shard_names(ingest):
            for image in shard_images(ingest, shard).to_pylist():
                counts[shard, image["key"]] = 0
            for row in shard_captions(captions, shard).to_pylist():
                assert row["status"] == "ok"
                counts[shard, row["key"]] += 1
        assert captions.counts["captions"] == sum(counts.values())
        return counts

    def digest(self, stage: str) -> str:
        """The identity of a stage's result."""
        manifest = Session.open(str(self.config)).resolve()[stage].manifest
        assert manifest is not None
        return manifest.digest


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project(tmp_path)
    assert made.run() == PICTURES * PROMPTS
    return made


def _delete(project: Project) -> None:
    (project.photos / "03.jpg").unlink()


def _correct_an_alt_text(project: Project) -> None:
    (project.photos / "07.txt").write_text("another text")


def _move(project: Project) -> None:
    (project.photos / "moved").mkdir()
    for number in range(6):
        for suffix in ("jpg", "txt"):
            name = f"{number:02d}.{suffix}"
            (project.photos / name).rename(project.photos / "moved" / name)


def _copy(project: Project) -> None:
    shutil.copy(project.photos / "02.jpg", project.photos / "02_again.jpg")


@pytest.mark.parametrize(
    ("change", "settings", "images"),
    [
        (_delete, {}, PICTURES - 1),
        (_correct_an_alt_text, {}, PICTURES),
        (_move, {}, PICTURES),
        (_copy, {}, PICTURES + 1),
        (lambda _: None, {"shard_images": 3}, PICTURES),
        (lambda _: None, {"caption": {"chunk_images": 3}}, PICTURES),
    ],
    ids=["deleted", "alt text", "moved", "copied", "other shards", "other chunks"],
)
def test_what_happens_to_files_costs_no_question(
    project: Project, change: Callable[[Project], None], settings: dict[str, Any], images: int
) -> None:
    change(project)
    assert project.run(**settings) == 0
    counts = project.captions()
    assert len(counts) == images
    assert set(counts.values()) == {PROMPTS}  # a picture under two keys has its captions under both


def test_a_new_and_an_edited_picture_cost_their_own_questions(project: Project) -> None:
    (project.photos / "zz.jpg").write_bytes(picture(99))
    (project.photos / "00.jpg").write_bytes(picture(98))
    shutil.copy(project.photos / "zz.jpg", project.photos / "zz_again.jpg")  # the same picture is asked about once
    assert project.run() == 2 * PROMPTS
    assert set(project.captions().values()) == {PROMPTS}
    (project.photos / "00.jpg").write_bytes(picture(0))  # as it was
    assert project.run() == 0


def test_a_repaired_row_costs_its_own_questions(tmp_path: Path) -> None:
    project = Project(tmp_path)
    whole = (project.photos / "04.jpg").read_bytes()
    (project.photos / "04.jpg").write_bytes(whole[:100])
    assert project.run() == (PICTURES - 1) * PROMPTS
    (project.photos / "04.jpg").write_bytes(whole)
    assert project.run("--retry-failed", stages="ingest") == 0
    assert project.run() == PROMPTS
    assert set(project.captions().values()) == {PROMPTS}


def test_tars_that_moved_or_were_renamed_change_nothing_that_is_trained_on(tmp_path: Path) -> None:
    project = Project(tmp_path)
    tars = tmp_path / "tars"
    tars.mkdir()
    for start in range(0, PICTURES, 4):
        with tarfile.open(tars / f"{start:05d}.tar", "w") as tar:
            for file in sorted(project.photos.iterdir())[2 * start : 2 * start + 8]:
                tar.add(file, file.name)
    project.source = {"kind": "webdataset", "path": str(tars)}
    stages = "ingest,caption,curate"
    assert project.run(stages=stages) == PICTURES * PROMPTS
    before = {stage: project.digest(stage) for stage in ("ingest", "caption", "curate")}
    tars.rename(tmp_path / "elsewhere")
    project.source["path"] = str(tmp_path / "elsewhere")
    assert project.run(stages=stages) == 0
    assert {stage: project.digest(stage) for stage in before} == before
    (tmp_path / "elsewhere" / "00000.tar").rename(tmp_path / "elsewhere" / "first.tar")
    assert project.run(stages=stages) == 0
    assert project.digest("caption") == before["caption"]
    assert project.digest("curate") == before["curate"]
    assert set(project.captions().values()) == {PROMPTS}


def test_a_lost_shard_is_packed_again_and_costs_no_question(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (tar,) = (project.root / "ws").glob("ingest/*/shards/000001.tar")
    kept = tar.read_bytes()
    tar.write_bytes(kept[: len(kept) // 2])
    assert main(["status", str(project.config), "--stages", "ingest,caption"]) == 0
    assert "gone or cut: 1 of its 3 shards, such as shards/000001.tar" in capsys.readouterr().out
    assert project.run() == 0
    assert tar.read_bytes() == kept


def test_damage_of_any_part_is_named_and_made_good(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert project.run(stages="curate") == 0
    captions = sorted((project.root / "ws/caption/captions").rglob("*.parquet"))
    captions[0].unlink()
    assert main(["status", str(project.config), "--stages", "ingest,caption"]) == 0
    assert f"gone or cut: 1 of its {len(captions)} parts" in capsys.readouterr().out
    assert project.run() > 0  # these answers are lost, and no others
    damaged = captions[1]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    settings = {"stages": "curate"}
    assert main(["curate", str(project.config), "--set", "curate.ngram=3"]) == 2
    said = capsys.readouterr().err
    assert f"{damaged} is damaged" in said
    assert "holism caption CONFIG --retry-failed" in said
    assert project.run("--retry-failed", stages="caption") > 0
    assert project.run(**settings) == 0
    assert set(project.captions().values()) == {PROMPTS}


def test_verify_names_every_damaged_file_and_the_commands_that_mend_them(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert project.run(stages="curate") == 0
    assert main(["verify", str(project.config)]) == 0
    assert f"{PICTURES} pictures of 3 results: all as recorded" in capsys.readouterr().out
    (tar,) = (project.root / "ws").glob("ingest/*/shards/000000.tar")
    parts = [
        next((project.root / "ws").glob(f"{place}/*.parquet")) for place in ("caption/captions/*", "curate/*/bundles")
    ]
    for file in (tar, *parts):
        data = bytearray(file.read_bytes())
        data[700] ^= 4
        file.write_bytes(bytes(data))
    assert main(["verify", str(project.config)]) == 2
    said = capsys.readouterr().err
    assert "3 files are gone or damaged" in said
    assert all(str(file) in said for file in (tar, *parts))
    parts[0].unlink()  # a part that is gone hides nothing of what is made from it
    tar.unlink()
    assert main(["verify", str(project.config)]) == 2
    assert "3 files are gone or damaged" in capsys.readouterr().err
    for stage in ("ingest", "caption", "curate"):
        assert f"holism {stage} {project.config} --retry-failed" in said
        assert main([stage, str(project.config), "--retry-failed"]) == 0
    assert main(["verify", str(project.config)]) == 0


def test_failures_that_were_asked_again_are_nowhere_to_be_seen(project: Project) -> None:
    (project.photos / "new.jpg").write_bytes(picture(77))
    assert project.run(stages="ingest") == 0
    found = Session.open(str(project.config)).resolve()["ingest"].manifest
    assert found is not None
    rows = [row for shard in shard_names(found) for row in shard_images(found, shard).to_pylist()]
    (new,) = (row["image_id"] for row in rows if row["source"] == "new.jpg")
    faulty = {"kind": "fake", "fake": {"ledger": str(project.ledger), "raise_on": [new]}}
    project.run(caption={"engine": faulty})
    assert project.run("--retry-failed") == PROMPTS
    assert project.run("--retry-failed") == 0
    assert set(project.captions().values()) == {PROMPTS}
    session = Session.open(str(project.config))
    catalog = Catalog(session.workspace, lambda: results(session))
    (row,) = catalog.current().rows("SELECT count(*) AS n, count(*) FILTER (status = 'error') AS failed FROM captions")
    catalog.close()
    assert (row["n"], row["failed"]) == ((PICTURES + 1) * PROMPTS, 0)


def test_curation_follows_alt_texts_and_the_chosen_prompts(project: Project) -> None:
    def bundles() -> list[dict[str, Any]]:
        manifest = Session.open(str(project.config)).resolve()["curate"].manifest
        assert manifest is not None
        parts = manifest.select("bundles/")
        return [row for part in parts for row in manifest.read(part, schemas.BUNDLES).to_pylist()]

    def kinds() -> set[str]:
        return {caption["perspective"] for row in bundles() for caption in row["captions"]}

    assert project.run(stages="curate") == 0
    assert {"alt_text", "style", "nouns"} <= kinds()
    (project.photos / "07.txt").write_text("a corrected text")
    assert project.run(stages="ingest,caption,curate") == 0
    texts = {caption["text"] for row in bundles() for caption in row["captions"]}
    assert "a corrected text" in texts
    assert "photo 7" not in texts
    assert project.run(stages="ingest,caption,curate", caption={"prompts": {"set": "paper", "only": ["nouns"]}}) == 0
    assert kinds() <= {"alt_text", "nouns"}


def test_captions_are_not_asked_of_a_damaged_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path)
    assert project.run(stages="ingest") == 0
    (tar,) = (tmp_path / "ws").glob("ingest/*/shards/000000.tar")
    data = bytearray(tar.read_bytes())
    data[700] ^= 4
    tar.write_bytes(bytes(data))
    assert main(["caption", str(project.config)]) == 2
    assert "is not the picture that was ingested" in capsys.readouterr().err


def test_tars_that_changed_under_the_same_time_stamp_are_found_on_request(tmp_path: Path) -> None:
    project = Project(tmp_path)
    tar = tmp_path / "tars" / "0.tar"
    tar.parent.mkdir()
    with tarfile.open(tar, "w") as packed:
        for file in sorted(project.photos.iterdir()):
            packed.add(file, file.name)
    project.source = {"kind": "webdataset", "path": str(tar.parent)}
    assert project.run(stages="ingest") == 0
    before, times = project.digest("ingest"), tar.stat()
    found = Session.open(str(project.config)).resolve()["ingest"].manifest
    assert found is not None
    row = shard_images(found, "0").to_pylist()[2]
    data = bytearray(tar.read_bytes())
    data[row["offset"] : row["offset"] + row["size"]] = bytes(row["size"])
    tar.write_bytes(bytes(data))
    os.utime(tar, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert project.run(stages="ingest") == 0
    assert project.digest("ingest") == before
    assert project.run("--retry-failed", stages="ingest") == 0
    assert project.digest("ingest") != before


def test_a_plan_says_what_a_run_will_ask(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    models = [{"model": "a"}, {"model": "b", "weight": 2}]
    settings = {"caption": {"models": models, "mix": "split", "prompts": {"set": "paper", "sample": 3}}}
    project.run(stages="ingest", **settings)
    capsys.readouterr()
    assert main(["plan", str(project.config), "--stages", "caption"]) == 0
    said = capsys.readouterr().out
    planned = sum(int(count) for count in re.findall(r"fake:\w+: (\d+) captions", said))
    assert project.run(**settings) == planned == 3 * PICTURES
