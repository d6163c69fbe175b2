"""What Prefect is given to show, without Prefect."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from evaluation import curves
from flows import artifacts, samples
from flows.run import Session
from pipeline.manifest import Manifest


@pytest.fixture
def session(finished: Path) -> Session:
    return Session.open(str(finished))


def result(session: Session, stage: str) -> Manifest:
    manifest = session.resolve()[stage].manifest
    assert manifest is not None
    return manifest


def test_keys_are_the_workspaces_own(session: Session, finished: Path) -> None:
    other = Session.open(str(finished), ["workspace=/elsewhere/Work Space_2"])
    assert re.fullmatch(r"workspace-[0-9a-f]{6}", artifacts.prefix(session))
    assert re.fullmatch(r"work-space-2-[0-9a-f]{6}", artifacts.prefix(other))
    again = Session.open(str(finished), ["workspace=/third/workspace"])
    assert artifacts.prefix(again) != artifacts.prefix(session)


def test_samples_are_pictures_with_their_captions(session: Session) -> None:
    page = artifacts.markdowns(session, result(session, "caption"))["samples"]
    assert page.count("![](data:image/jpeg;base64,") == samples.IMAGES
    (first, *_) = re.findall(r"base64,([^)]+)\)", page)
    assert base64.b64decode(first)[:2] == b"\xff\xd8"
    assert page.count("- **detail** paragraph: ") == samples.IMAGES
    assert "~~" not in page
    curated = artifacts.markdowns(session, result(session, "curate"))["samples"]
    assert re.search(r"- \*\*\w+\*\* \w+: ~~[^~]+~~ \(off topic\)", curated)


def test_words_of_strangers_stay_words() -> None:
    assert samples.text("<img src=x> [a](b) *c* `d`\n# e | f") == (
        "&lt;img src=x&gt; \\[a\\]\\(b\\) \\*c\\* \\`d\\` \\# e \\| f"
    )
    assert len(samples.text("x" * 10_000)) < 400


def test_training_is_a_curve_and_a_table(session: Session) -> None:
    manifest = result(session, "train")
    assert list(curves.read(manifest)) == ["holism"]
    assert [step for step, _ in curves.read(manifest)["holism"].loss] == [1, 2, 3]
    picture = artifacts.markdowns(session, manifest)["losses"]
    (data,) = re.findall(r"data:image/png;base64,([^)]+)\)", picture)
    assert base64.b64decode(data).startswith(b"\x89PNG")
    ((row,),) = artifacts.tables(manifest).values()
    assert row["run"] == "holism"
    assert {"steps", "loss", "first loss", "loss m2m", "loss served"} < row.keys()


def test_long_curves_are_thinned(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = result(session, "train")
    (whole,) = curves.read(manifest).values()
    monkeypatch.setattr(curves, "MOST_POINTS", 2)
    (thin,) = curves.read(manifest).values()
    assert [step for step, _ in thin.loss] == [2, 3]
    assert thin.loss[0][1] == pytest.approx((whole.loss[0][1] + whole.loss[1][1]) / 2)


def test_evaluation_has_its_headline_and_the_way_to_its_report(session: Session, finished: Path) -> None:
    manifest = result(session, "evaluate")
    rows = artifacts.tables(manifest)["headline"]
    assert rows[0].keys() == {"benchmark", "figure", "chance", "holism"}
    summary = artifacts.markdowns(session, manifest)["summary"]
    assert "macro accuracy object" in summary
    assert f"holism browse {finished}" in summary
    assert "/report" in summary


def test_every_stage_has_artifacts_with_valid_keys(session: Session) -> None:
    for stage in session.resolve():
        manifest = result(session, stage)
        kinds = [*artifacts.markdowns(session, manifest), *artifacts.tables(manifest)]
        assert len(set(kinds)) == len(kinds)
        assert all(re.fullmatch(r"[a-z0-9-]+", kind) for kind in kinds)
        for rows in artifacts.tables(manifest).values():
            assert all(isinstance(row, dict) for row in rows)
