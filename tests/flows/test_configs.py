"""The configurations that ship are valid, whatever the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.config import load_config
from pipeline.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_is_valid(path: Path) -> None:
    config = load_config(path)
    assert all(config.train.run(name).branch_names for name in config.train.runs)


def test_the_demo_trains_the_baseline_beside_the_model() -> None:
    config = load_config(CONFIGS[[path.stem for path in CONFIGS].index("demo")])
    baseline = config.train.run("alt_text_o2o")
    assert [slot.name for slot in baseline.slots] == ["alt_text"]
    assert set(baseline.losses) == {"o2o"}
    assert len(config.train.run("holism").slots) == 8


def test_further_rounds_need_somebody_to_ask(tmp_path: Path) -> None:
    tables = "[{name: a, path: x.parquet, columns: {image: key, text: caption}, perspective: detail}]"
    path = tmp_path / "holism.yaml"
    path.write_text(
        f"workspace: {tmp_path}\n"
        f"ingest: {{source: {{kind: folder, path: {tmp_path}}}}}\n"
        f"caption: {{models: [], tables: {tables}}}\n"
        "curate: {regenerate: {rounds: 1}}\n"
    )
    with pytest.raises(ConfigError, match=r"curate\.regenerate\.rounds is 1, but caption\.models is empty"):
        load_config(path)
    assert load_config(path, ["curate.regenerate.rounds=0"]).caption.models == ()


@pytest.mark.parametrize(
    ("key", "now"),
    [
        ("caption.ray.address=127.0.0.1:6379", "ray.address"),
        ("curate.ray.schedule_seconds=3", "ray.schedule_seconds"),
        ("curate.regenerate.warmer=0.1", "curate.regenerate.temperature_step"),
    ],
)
def test_old_keys_name_the_new_ones(key: str, now: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{key.partition('=')[0]}' is called '{now}' now: rename it"):
        load_config(CONFIGS[0], [key])
