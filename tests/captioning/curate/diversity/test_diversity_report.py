"""The report on diversity: what it says is what the tables hold, safely shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from captioning.curate.config import CurateConfig
from captioning.curate.diversity.collect import CaptionSet, collect
from captioning.curate.diversity.figures import Diversity
from captioning.curate.diversity.plots import PLOTS, png
from captioning.curate.diversity.report import render
from flows.cli import main
from pipeline.workspace import Workspace
from tests.captioning.small_workspace import DROPPED, PROMPTS, caption, curate, ingest


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Captions with planted faults."""
    made = ingest(tmp_path_factory.mktemp("report"))
    caption(made)
    return made


def gather(workspace: Workspace, name: str = "small", config: CurateConfig | None = None) -> CaptionSet:
    """The set of a workspace, curated under a configuration."""
    curated = curate(workspace, config)
    inputs = {stage: workspace.manifests(stage)[0] for stage in ("ingest", "caption")}
    return collect(name, inputs, curated, Diversity(), ngram=2, examples=3)


def test_a_set_counts_what_was_written_kept_and_dropped(workspace: Workspace) -> None:
    caption_set = gather(workspace)
    counts = workspace.manifests("curate")[0].counts
    failed = sum(text is None for text, _, _ in DROPPED.values())
    assert caption_set.written.images == 29
    assert caption_set.written.captions == 29 * len(PROMPTS) - failed
    assert (caption_set.kept.captions, caption_set.judged) == (counts["kept"], counts["captions"])
    assert sum(caption_set.dropped.values()) == counts["dropped"]
    assert caption_set.dropped["reject", "refusal"] == 1
    assert caption_set.kept.mean("lexical_similarity") == pytest.approx(counts["mean_similarity"], abs=1e-4)
    assert len(caption_set.examples) == 3
    assert all(example.captions and example.picture.startswith("data:image/") for example in caption_set.examples)


def test_the_page_needs_nothing_else_and_escapes_what_models_wrote(workspace: Workspace) -> None:
    first = gather(workspace, "one <b>")
    second = gather(workspace, "two", CurateConfig.model_validate({"select": {"max_captions": 2}, "coverage": False}))
    page = render([first, second], None)
    assert "one &lt;b&gt;" in page
    assert "<script" not in page
    assert page.count("<svg") == len(PLOTS)
    loaded = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert all(target.startswith(("data:image/", "#")) for target in loaded), loaded
    assert "@import" not in page
    assert "over limit" in page


def test_plots_are_pictures(workspace: Workspace) -> None:
    sets = {"one": gather(workspace).kept}
    for plot in PLOTS.values():
        assert png(plot, sets)[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_workspace_that_is_not_curated_names_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "empty.yaml"
    source = {"kind": "folder", "path": str(tmp_path)}
    config.write_text(yaml.safe_dump({"workspace": str(tmp_path / "ws"), "ingest": {"source": source}}))
    assert main(["diversity", str(config)]) == 2
    assert f"holism run {config} --stages ingest,caption,curate" in capsys.readouterr().err
