"""The contract that all engines share, and what each adds to it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning.config import EngineConfig, ModelReference
from captioning.engines import choose
from captioning.engines.base import Answer, Engine, EngineDiedError, Request, answers
from captioning.engines.child import ChildEngine
from captioning.engines.service import EngineThread
from captioning.models import Model, resolve
from pipeline.config import build
from tests.captioning import tiny_vlm
from tests.captioning.vllm_server import serve

SERVED = "tiny"
IMAGES = 3
BLOCK = 32  # tokens that a CPU engine caches together
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


@pytest.fixture(scope="session")
def served_model(tiny_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same LLaVA behind vLLM's own server, which takes a minute to start."""
    with serve(tiny_model.source, SERVED, tmp_path_factory.mktemp("server") / "log") as url:
        yield url


@pytest.fixture(scope="session", params=[
    "fake",
    pytest.param("transformers", marks=pytest.mark.slow),
    pytest.param("vllm", marks=[pytest.mark.slow, pytest.mark.vllm]),
    pytest.param("openai", marks=[pytest.mark.slow, pytest.mark.vllm]),
])  # fmt: skip
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Every engine, started once for the whole suite."""
    if request.param in ("vllm", "openai"):
        pytest.importorskip("vllm")
    options: dict[str, Any] = {"kind": request.param, "max_model_len": 256, "max_num_seqs": 64}
    if request.param == "openai":
        options["server"] = {"base_url": request.getfixturevalue("served_model"), "api_key_env": "HOLISM_TEST_NO_KEY"}
    config = build(EngineConfig, options)
    if request.param in ("fake", "openai"):
        model = resolve(ModelReference(model=SERVED), config)
    else:
        model = request.getfixturevalue("tiny_model")
    made = choose.make_in_child(config, model)
    made.start()
    yield made
    made.stop()


def requests(max_tokens: int = 12, **sampling: Any) -> list[Request]:
    rng = np.random.default_rng(0)
    asked = []
    for number in range(IMAGES):
        image = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
        asked += [Request(image, f"image{number}", text, max_tokens, **sampling) for text in QUESTIONS]
    return asked


def test_every_request_is_answered_in_its_place(engine: Engine) -> None:
    asked = requests()
    answered = answers(engine, asked)
    assert len(answered) == len(asked)
    assert all(answer.error is None and answer.text is not None for answer in answered)
    assert all(0 < answer.output_tokens <= 12 for answer in answered)
    assert all(answer.prompt_tokens > answer.output_tokens for answer in answered)
    assert all(0 <= answer.cached_tokens < answer.prompt_tokens for answer in answered)
    assert {answer.finish_reason for answer in answered} <= {"stop", "length"}
    assert engine.name in {"fake", "transformers", "vllm", "openai"}
    assert engine.version not in {"", "unknown"}
    for index in (0, 4, 8):  # alone, in any company, each request gets its own answer
        alone = answers(engine, [asked[index]])[0]
        assert alone.text == answered[index].text
        assert alone.prompt_tokens == answered[index].prompt_tokens


def test_greedy_answers_repeat(engine: Engine) -> None:
    first, second = ([answer.text for answer in answers(engine, requests())] for _ in range(2))
    assert first == second


def test_budgets_cut_and_say_so(engine: Engine) -> None:
    answered = answers(engine, requests(max_tokens=2))
    assert all(answer.output_tokens <= 2 for answer in answered)
    assert all(answer.finish_reason == "length" for answer in answered if answer.output_tokens == 2)


def test_sampled_answers_follow_their_seed(engine: Engine) -> None:
    def texts(seed: int) -> list[str | None]:
        return [answer.text for answer in answers(engine, requests(temperature=1.0, seed=seed))]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_seeds_survive_more_prompts_than_one_step_takes_in(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    pictures = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(64)]
    asked = [
        Request(picture, f"picture {number}", QUESTIONS[0], 2, 1.0, seed=number)
        for number, picture in enumerate(pictures)
    ]
    assert all(answer.text is not None for answer in answers(engine, asked))


def test_an_image_is_looked_at_once_where_there_is_a_cache(engine: Engine) -> None:
    picture = Image.fromarray(np.random.default_rng().integers(0, 255, (64, 64, 3), dtype=np.uint8))
    name = f"new {time.time_ns()}"
    asked = [Request(picture, name, question, 8) for question in QUESTIONS]
    first, *others = sorted(answer.cached_tokens for answer in answers(engine, asked))  # any may be the first there
    assert first < tiny_vlm.IMAGE_TOKENS
    if engine.name == "transformers":
        assert others == [0] * len(others)
    else:
        assert all(tokens >= tiny_vlm.IMAGE_TOKENS - BLOCK for tokens in others)


def test_a_request_that_cannot_be_asked_costs_only_itself(engine: Engine) -> None:
    if engine.name in ("fake", "transformers"):
        pytest.skip("only vLLM has a limit on the length of a prompt here")
    good = requests()
    before = answers(engine, good)
    bad = dataclasses.replace(good[0], prompt="what " * 2000)
    *others, refused = engine.submit([*good[:3], bad])
    with pytest.raises(Exception, match=r"\w"):
        refused.result(timeout=60)
    assert [future.result(timeout=60).text for future in others] == [answer.text for answer in before[:3]]
    assert [answer.text for answer in answers(engine, good)] == [answer.text for answer in before]


def test_callers_at_the_same_time_get_their_own_answers(engine: Engine) -> None:
    asked = requests()
    expected = [answer.text for answer in answers(engine, asked)]
    with ThreadPoolExecutor(IMAGES) as threads:
        groups = list(threads.map(engine.submit, [asked[i : i + 3] for i in range(0, len(asked), 3)]))
    assert [future.result(timeout=120).text for futures in groups for future in futures] == expected


def test_a_schema_is_kept_where_the_engine_can(engine: Engine) -> None:
    schema = {
        "type": "object", "required": ["nouns", "mood"], "additionalProperties": False,
        "properties": {"nouns": {"type": "string", "maxLength": 5}, "mood": {"type": "string", "maxLength": 3}},
    }  # fmt: skip
    asked = [dataclasses.replace(request, json_schema=schema, max_tokens=64) for request in requests()[:2]]
    answered = answers(engine, asked)
    if engine.name == "transformers":
        assert all(answer.text is not None for answer in answered)
        return
    for answer in answered:
        assert set(json.loads(answer.text or "")) == {"nouns", "mood"}


def test_a_stopped_engine_says_so_and_starts_again(engine: Engine) -> None:
    if engine.name == "vllm":
        pytest.skip("every start of vLLM costs half a minute")
    before = [answer.text for answer in answers(engine, requests()[:1])]
    engine.stop()
    if engine.name != "fake":
        with pytest.raises(EngineDiedError):
            answers(engine, requests()[:1])
    engine.start()
    assert [answer.text for answer in answers(engine, requests()[:1])] == before


class Fickle(EngineThread):
    """Takes all that waits, answers one, puts the rest back, and then thinks for long: as transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.stuck, self.goes_on = threading.Event(), threading.Event()

    def _load(self) -> None: ...

    def _unload(self) -> None: ...

    def _busy(self) -> bool:
        return False

    def _step(self) -> None:
        (_, first), *others = self.take(8)
        self.put_back(others)
        self.answer(first, Answer("one"))
        self.stuck.set()
        self.goes_on.wait(10)


def test_an_engine_that_is_stopped_leaves_no_future_open() -> None:
    engine = Fickle()
    engine.start()
    futures = engine.submit(requests() * 4)
    engine.stuck.wait(10)
    engine.goes_on.set()
    engine.stop()
    left = [future.exception(timeout=10) for future in futures]
    assert any(error is None for error in left)
    assert {type(error) for error in left if error} == {EngineDiedError}


def test_a_child_that_is_killed_is_an_engine_that_died() -> None:
    config = build(EngineConfig, {"kind": "fake", "fake": {"delay_seconds": 60}})
    engine = choose.make_in_child(config, resolve(ModelReference(model=SERVED), config))
    assert isinstance(engine, ChildEngine)
    engine.start()
    asked = engine.submit(requests()[:3])
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    for future in [*asked, *engine.submit(requests()[:1])]:
        with pytest.raises(EngineDiedError, match="SIGKILL"):
            future.result(timeout=10)
    engine.stop()


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
