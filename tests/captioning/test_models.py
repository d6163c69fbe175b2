"""Which model is meant: a folder by all of its files that matter, a hub's branch by its commit."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from captioning import hub
from captioning.config import CaptionConfig, EngineConfig, ModelReference
from captioning.models import Model, on_worker, resolve
from captioning.stage import _warnings, external
from pipeline.config import build

NAME = "org/vlm"
ONE, OTHER = "1" * 40, "2" * 40
COUNTS = {"errors": 0, "quarantined": 0, "captions": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, and a hub that must not be asked."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.commit_of.cache_clear()
    return tmp_path / "models--org--vlm" / "refs"


def revision(model: str = NAME, revision: str | None = None) -> str:
    return resolve(ModelReference(model=model, revision=revision), EngineConfig(kind="vllm")).revision


def online(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[str]:
    """A hub that gives this answer; returns what it was asked."""
    asked: list[str] = []

    def model_info(_: Any, model: str, **options: Any) -> Any:
        asked.append(f"{model}@{options['revision']}")
        return answer()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "model_info", model_info)
    return asked


def test_a_branch_is_the_commit_that_the_local_cache_knows(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir(parents=True)
    (cache / "main").write_text(ONE)
    (cache / "v2").write_text(OTHER)
    asked = online(monkeypatch, lambda: SimpleNamespace(sha=OTHER))
    assert [revision(), revision(revision="main"), revision(revision="v2"), revision(revision=OTHER)] == [
        ONE, ONE, OTHER, OTHER,
    ]  # fmt: skip
    assert not asked, "what is known costs no network"


def test_a_hub_is_asked_once_and_its_answer_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = online(monkeypatch, lambda: SimpleNamespace(sha=ONE))
    assert revision() == ONE
    hub.commit_of.cache_clear()  # another process
    online(monkeypatch, lambda: SimpleNamespace(sha=OTHER))
    assert revision() == ONE, "captions stay those of one commit"
    assert asked == ["org/vlm@main"]
    assert (cache / "main").read_text() == ONE


def test_a_hub_that_does_not_answer_stops_nobody(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert revision() == "main"  # offline
    for answer in (lambda: 1 / 0, lambda: SimpleNamespace(sha=None), lambda: time.sleep(60)):
        hub.commit_of.cache_clear()
        online(monkeypatch, answer)
        monkeypatch.setattr(hub, "SECONDS", -0.9)
        began = time.monotonic()
        assert revision() == "main"
        assert time.monotonic() - began < 5
    assert not cache.exists()


def test_names_lead_to_no_other_file(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache.parent / "secret").write_text(ONE)
    assert revision(revision="../secret") == "../secret"


def test_workers_take_the_commit_that_was_planned(cache: Path) -> None:
    reference, engine = ModelReference(model=NAME), EngineConfig(kind="vllm")
    planned = [Model("another", OTHER, "another", False), Model(NAME, ONE, NAME, False)]
    assert on_worker(reference, engine, planned) == planned[1]


@pytest.mark.parametrize("pin", [None, "main", "v1.0", "abc1234"])
def test_what_is_no_commit_is_no_pin(cache: Path, pin: str | None) -> None:
    config = build(CaptionConfig, {"models": [{"model": NAME, "revision": pin}], "engine": {"kind": "vllm"}})
    (warning,) = _warnings(config, [Model(NAME, pin or "main", NAME, False)], COUNTS, None)
    assert "is not pinned" in warning
    assert "revision: COMMIT" in warning
    (warning,) = _warnings(config, [Model(NAME, ONE, NAME, False)], COUNTS, None)
    assert f"revision: {ONE}" in warning, "what it is now can be copied"


def test_a_commit_is_a_pin(cache: Path) -> None:
    config = build(CaptionConfig, {"models": [{"model": NAME, "revision": ONE}], "engine": {"kind": "vllm"}})
    assert not _warnings(config, [Model(NAME, ONE, NAME, False)], COUNTS, None)
    assert external(config)[f"model:{NAME}"] == ONE


FILES = ("merges.txt", "vocab.txt", "chat_template.jinja", "tokenizer/merges.txt", "modeling_own.py", "vocab.json")


@pytest.mark.parametrize("name", FILES)
def test_every_file_that_a_model_reads_is_its_identity(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path)
    before = revision(str(folder))
    (folder / name).write_text("other")
    assert revision(str(folder)) != before


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE", "license.txt", "Notice.txt", ".cache/x", "__pycache__/a.pyc"]
)
def test_files_about_a_model_are_not(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path)
    before = revision(str(folder))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("other")
    assert revision(str(folder)) == before


def test_a_file_of_the_same_name_elsewhere_is_another(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    before = revision(str(folder))
    (folder / "tokenizer" / "merges.txt").rename(folder / "merges2")
    (folder / "merges.txt").rename(folder / "tokenizer" / "merges.txt")
    (folder / "merges2").rename(folder / "merges.txt")
    assert revision(str(folder)) != before


def test_the_demo_vlm_is_who_it_was() -> None:
    assert revision("demo_vlm") == "84c88c5926cefcb9b994e65d50ebd6bb"


def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "vlm"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llava"}')
    (folder / "model.safetensors").write_bytes(bytes(100))
    for name in FILES:
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("model", "name"), [("one", "fake:one"), ("fake:one", "fake:one"), ("org/one", "fake:org/one")]
)
def test_a_model_that_the_fake_engine_plays_says_so_once(model: str, name: str) -> None:
    assert resolve(ModelReference(model=model), EngineConfig(kind="fake")).name == name
