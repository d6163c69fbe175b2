"""Options of an engine that change answers are part of the question; those that do not are not."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from captioning import prompts
from captioning.asking.cells import plan
from captioning.config import CaptionConfig
from captioning.engine_options import OPERATIONAL
from captioning.models import Model
from pipeline.config import build, semantic
from pipeline.errors import ConfigError

MODEL = Model("m", "r", "m", True)


def identities(options: dict[str, Any], kind: str = "vllm") -> tuple[list[str], list[str], Any]:
    """Ids of the cells, of a caption of each, and what enters the stage's fingerprint."""
    config = build(CaptionConfig, {"models": ["m"], "engine": {"kind": kind, "options": options}})
    cells = plan(config, prompts.load("paper"), [MODEL])
    return [cell.id for cell in cells], [cell.caption_id("i", "q") for cell in cells], semantic(config)


def test_without_options_ids_are_what_they_were() -> None:
    cells, captions, section = identities({})
    assert cells[0] == "26fd3a183ffd36dbe4377d4748ad8c97"
    assert captions[0] == "ce8d54253d584a8a8285f5cdb7e5c969"
    assert section["engine"] == {"kind": "vllm"}


@pytest.mark.parametrize("name", sorted(OPERATIONAL))
def test_operational_options_change_nothing(name: str) -> None:
    assert identities({name: 1}) == identities({})


@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "fp8"},
        {"dtype": "float16"},
        {"kv_cache_dtype": "fp8"},
        {"mm_processor_kwargs": {"max_pixels": 1000}},
        {"mm_processor_kwargs": {"max_pixels": 2000}},
        {"hf_overrides": {"rope_theta": 1}},
        {"chat_template": "x.jinja"},
        {"trust_remote_code": True},
        {"tokenizer_mode": "slow"},
        {"an_option_of_tomorrow": 1},
    ],
)
def test_options_that_change_answers_are_another_question(options: dict[str, Any]) -> None:
    cells, captions, section = identities({"gpu_memory_utilization": 0.5, **options})
    plain_cells, plain_captions, _ = identities({})
    assert not set(cells) & set(plain_cells)
    assert not set(captions) & set(plain_captions)
    assert section["engine"]["options"] == options
    assert identities(options)[0] == cells


def test_other_values_are_other_questions() -> None:
    ids = [identities({"mm_processor_kwargs": {"max_pixels": size}}) for size in (1, 2)]
    assert ids[0][0] != ids[1][0]


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"kind": "openai", "options": {"dtype": "half"}}, "start the server with them"),
        ({"kind": "transformers", "options": {"dtype": "half"}}, "reads trust_remote_code alone"),
    ],
)
def test_options_that_nobody_reads_are_refused(engine: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(CaptionConfig, {"engine": engine})


def test_the_list_names_options_that_vllm_has() -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed")
    source = ast.parse(Path(spec.origin).with_name("engine").joinpath("arg_utils.py").read_text())
    arguments = next(node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "EngineArgs")
    fields = {node.target.id for node in arguments.body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
    assert fields >= OPERATIONAL
