"""Every recipe that ships starts end to end at toy size, and is at toy size what it is at full size."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from flows import smoke
from flows.cli import main
from flows.config import load_config
from pipeline.errors import ConfigError
from training.config import RunConfig

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# What a run is beside its sizes.
CHOICES = ("slots", "branches", "branch_kind", "isolation", "projection", "losses", "freeze", "layer_decay", "lr")
CHOICES += (
    "captions_per_image",
    "precision",
    "crop_scale",
    "image_mean",
    "context_length",
    "weight_decay",
    "grad_clip",
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_runs_end_to_end(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ray_instance: None
) -> None:
    monkeypatch.chdir(tmp_path)  # relative paths of the recipe would show here
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    quick = ["--set", "train.workers=0", "--set", "train.threads=1"]
    assert main(["run", str(path), "--smoke", *quick]) == 0, capfd.readouterr().err
    said = capfd.readouterr().out
    for stage in ("ingest", "caption", "curate", "train", "evaluate"):
        assert f"{stage}: done in" in said
    assert all(run in said for run in load_config(path).train.runs)
    left = [name for name in os.listdir(tmp_path) if name.startswith("holism-smoke-") or name in ("workspace", "demo")]
    assert left == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_keeps_what_a_recipe_decides(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    small, changed = smoke.smaller(config, tmp_path)
    assert small.train.runs.keys() == config.train.runs.keys()
    for name in config.train.runs:
        of_full, of_toy = config.train.run(name), small.train.run(name)
        assert {key: getattr(of_toy, key) for key in CHOICES} == {key: getattr(of_full, key) for key in CHOICES}
        assert bool(of_toy.warm_start) == bool(of_full.warm_start)
        assert (of_toy.micro_batch is None) == (of_full.micro_batch is None)
    assert small.caption.prompts == config.caption.prompts
    assert small.caption.sampling == config.caption.sampling
    assert small.curate.sub_captions == config.curate.sub_captions
    assert small.ingest.source.kind == config.ingest.source.kind
    assert (config.train.launch.ranks > 1) == any(sentence.startswith("train.launch") for sentence in changed)
    assert all(str(tmp_path) in place for place in (small.workspace, *small.evaluate.benchmarks))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_says_what_it_was_planned_for(path: Path) -> None:
    head = path.read_text().split("\nworkspace:")[0]
    assert re.search(r"^# Planned for(, not measured)?: .*images, .*GPUs?\b.*\d h .*\d [GT]B", head, re.MULTILINE), (
        head
    )


def test_what_a_toy_cannot_have_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "workspace: s3://nobody/here\n"
        "ingest: {source: {kind: urls, path: links.csv}}\n"
        "curate: {select: {similarity: semantic, quality: ground, method: mmr},"
        " ground: {scorer: {model: ViT-B-32, pretrained: openai}}}\n"
        "train: {model: ViT-B-16, branch_kind: query, branch_blocks: 6, compile: true, launch: {ranks: 4}}\n"
        "ray: {address: '10.0.0.1:6379'}\n"
    )
    small, changed = smoke.smaller(load_config(path), tmp_path)
    keys = {sentence.partition(":")[0] for sentence in changed}
    assert keys == {
        "ingest.source", "curate.ground", "curate.select.similarity", "train.branch_blocks", "train.compile",
        "train.launch", "ray.address",
    }  # fmt: skip
    assert not any(recipe.compile for recipe in [small.train, *map(small.train.run, small.train.runs)])
    assert small.train.branch_blocks == smoke.LAYERS
    assert small.ray.address is None


def test_a_mistake_in_the_recipe_is_found_at_any_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slots = "train.slots=[alt_text, backgroun]"
    assert main(["run", str(ROOT / "configs" / "cc3m.yaml"), "--smoke", "--set", slots]) == 2
    assert "did you mean 'background'?" in capsys.readouterr().err
    tag = "train.warm_start=open_clip:laion400m_e3"
    assert main(["run", str(ROOT / "configs" / "photos.yaml"), "--smoke", "--set", tag]) == 2
    assert "open_clip has no weights 'laion400m_e3' for train.model ViT-B-16" in capsys.readouterr().err


def test_captions_of_others_have_no_toy(tmp_path: Path) -> None:
    tables = "[{name: a, path: x.parquet, columns: {image: key, text: caption}, perspective: detail}]"
    config = load_config(CONFIGS[0], [f"caption.tables={tables}"])
    with pytest.raises(ConfigError, match=r"nothing to put in the place of caption\.tables \(a\)"):
        smoke.smaller(config, tmp_path)


def test_lists_of_keys_name_keys_that_are() -> None:
    assert {*smoke.SIZES, *smoke.TOY, *CHOICES} <= RunConfig.model_fields.keys()
