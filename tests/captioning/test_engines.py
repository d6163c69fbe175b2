"""The contract that all engines share, and what each adds to it."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning.config import EngineConfig, ModelReference
from captioning.engines import choose
from captioning.engines.base import Engine, Request
from captioning.models import Model, resolve
from pipeline.config import build
from tests.captioning import tiny_vlm

IMAGES = 3
QUESTIONS = (
    "Describe the image.",
    "What is in the background?",
    "Name the one main object with all that belongs to it.",
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A LLaVA of random weights on disk."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    folder = tiny_vlm.build(tmp_path_factory.mktemp("vlm") / "tiny")
    return resolve(ModelReference(model=str(folder)), EngineConfig())


@pytest.fixture(scope="session", params=[
    "fake",
    pytest.param("transformers", marks=pytest.mark.slow),
    pytest.param("vllm", marks=[pytest.mark.slow, pytest.mark.vllm]),
])  # fmt: skip
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every engine, started once for the whole suite."""
    if request.param == "vllm":
        pytest.importorskip("vllm")
    options: dict[str, Any] = {"kind": request.param, "max_model_len": 256, "max_num_seqs": 16}
    config = build(EngineConfig, options)
    model = Model("fake", "0", "", False) if request.param == "fake" else request.getfixturevalue("tiny_model")
    made = choose.make(config, model)
    made.start()
    yield made
    made.stop()


def requests(max_tokens: int = 12, **sampling: Any) -> list[Request]:
    rng = np.random.default_rng(0)
    found = []
    for number in range(IMAGES):
        image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        found += [Request(image, f"image{number}", text, max_tokens, **sampling) for text in QUESTIONS]
    return found


def test_every_request_is_answered_in_its_place(engine: Engine) -> None:
    asked = requests()
    answers = engine.generate(asked)
    assert len(answers) == len(asked)
    assert all(answer.error is None and answer.text is not None for answer in answers)
    assert all(0 < answer.output_tokens <= 12 for answer in answers)
    assert all(answer.prompt_tokens > answer.output_tokens for answer in answers)
    assert all(0 <= answer.cached_tokens < answer.prompt_tokens for answer in answers)
    assert {answer.finish_reason for answer in answers} <= {"stop", "length"}
    assert engine.name in {"fake", "transformers", "vllm"}
    assert engine.version not in {"", "unknown"}
    for index in (0, 4, 8):  # alone, in any company, each request gets its own answer
        alone = engine.generate([asked[index]])[0]
        assert alone.text == answers[index].text
        assert alone.prompt_tokens == answers[index].prompt_tokens


def test_greedy_answers_repeat(engine: Engine) -> None:
    first, second = ([answer.text for answer in engine.generate(requests())] for _ in range(2))
    assert first == second


def test_budgets_cut_and_say_so(engine: Engine) -> None:
    answers = engine.generate(requests(max_tokens=2))
    assert all(answer.output_tokens <= 2 for answer in answers)
    assert all(answer.finish_reason == "length" for answer in answers if answer.output_tokens == 2)


def test_sampled_answers_follow_their_seed(engine: Engine) -> None:
    def texts(seed: int) -> list[str | None]:
        return [answer.text for answer in engine.generate(requests(temperature=1.0, seed=seed))]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_an_image_is_looked_at_once_where_there_is_a_cache(engine: Engine) -> None:
    asked = [request for request in requests() if request.image_id == "image1"]
    cached = [answer.cached_tokens for answer in engine.generate(asked)]
    if engine.name == "transformers":
        assert cached == [0] * len(asked)
    else:
        assert all(tokens >= tiny_vlm.IMAGE_TOKENS for tokens in cached[1:])


def test_a_request_that_cannot_be_asked_leaves_no_trace(engine: Engine) -> None:
    if engine.name != "vllm":
        pytest.skip("only vLLM has a limit on the length of a prompt here")
    good = requests()
    before = engine.generate(good)
    bad = dataclasses.replace(good[0], prompt="what " * 2000)
    with pytest.raises(Exception, match="maximum context length"):
        engine.generate([*good[:4], bad, *good[4:]])
    assert [answer.text for answer in engine.generate(good)] == [answer.text for answer in before]


def test_the_fake_engine_dies_on_demand() -> None:
    program = (
        "from captioning.config import FakeEngineConfig as C; from captioning.engines.fake import FakeEngine as F;"
        "from captioning.engines.base import Request as R; F(C(die_on=('a',))).generate([R(None, 'a', 'what?', 5)])"
    )
    root = Path(__file__).parent.parent.parent
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == -signal.SIGKILL


def test_a_models_revision_follows_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(20_000_000))  # larger than what is read whole
    reference, config = ModelReference(model=str(tmp_path)), EngineConfig()
    first = resolve(reference, config)
    assert resolve(reference, config) == first
    weights.write_bytes(np.random.default_rng(0).bytes(20_000_000))
    assert resolve(reference, config).revision != first.revision
    assert resolve(reference, EngineConfig(kind="fake")).name.startswith("fake:")
    assert resolve(ModelReference(model="org/name", revision="abc"), config) == Model(
        "org/name", "abc", "org/name", False
    )
