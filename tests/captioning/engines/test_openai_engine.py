"""The engine that asks a server, against a server that misbehaves as it is told."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioning.config import EngineConfig, ModelReference
from captioning.engines import choose
from captioning.engines.base import Answer, Engine, EngineDiedError, Request, answers
from captioning.engines.openai import NoAnswerError
from captioning.models import Model, resolve
from pipeline.config import build
from pipeline.errors import ConfigError, EngineError, HolismError
from tests.captioning import world
from tests.captioning.faulty_server import CLOSE, HANG, LIMIT, MODEL, Reply, Server, completion, said

pytest.importorskip("openai")

KEY = "sk-nobody-may-ever-see-this"
VARIABLE = "HOLISM_TEST_KEY"
RGB = Image.effect_mandelbrot((24, 16), (-2, -1, 1, 1), 50).convert("RGB")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on a port of its own; the key is set."""
    monkeypatch.setenv(VARIABLE, f"{KEY}\n")
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def engine(server: Server) -> Iterator[Engine]:
    """An engine that has seen the server; one retry, half a second of patience."""
    made = make(server)
    made.start()
    yield made
    made.stop()


def settings(server: Server, **more: Any) -> dict[str, Any]:
    own = {"base_url": server.url, "api_key_env": VARIABLE, "retries": 1, "timeout_seconds": 0.5, "concurrency": 8}
    return {"kind": "openai", "server": {**own, **more}}


def make(server: Server, **more: Any) -> Engine:
    config = build(EngineConfig, settings(server, **more))
    return choose.make(config, resolve(ModelReference(model=MODEL), config))


def questions(count: int = 1, **more: Any) -> list[Request]:
    return [Request(RGB, "image", f"What is number {number}?", 20, **more) for number in range(count)]


def failure(future: Future[Answer]) -> BaseException:
    """Why there is no answer. The key is in nothing that could be printed of it."""
    error = future.exception(timeout=LIMIT)
    assert error is not None
    assert KEY not in f"{error!s} {error!r} {error.args} {error.__cause__!r}"
    return error


def test_a_question_goes_out_whole_and_its_answer_comes_back_exactly(server: Server, engine: Engine) -> None:
    schema = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}
    asked = [*questions(2), *questions(1, temperature=0.7, top_p=0.9, seed=11, json_schema=schema)]
    answered = answers(engine, asked)
    assert [answer.text for answer in answered] == [f"  {request.prompt}\n" for request in asked]
    for answer in answered:
        assert (answer.prompt_tokens, answer.cached_tokens, answer.output_tokens) == (70, 64, 7)
        assert answer.finish_reason == "length"
        assert answer.preprocess_seconds > 0
    greedy = next(body for body in server.asked if "seed" not in body)
    assert (greedy["model"], greedy["temperature"], greedy["top_p"], greedy["max_tokens"]) == (MODEL, 0.0, 1.0, 20)
    assert "response_format" not in greedy
    sampled = next(body for body in server.asked if "seed" in body)
    assert (sampled["temperature"], sampled["top_p"], sampled["seed"]) == (0.7, 0.9, 11)
    assert sampled["response_format"]["json_schema"] == {"name": "caption", "schema": schema, "strict": True}
    assert server.keys == {f"Bearer {KEY}"}


def test_the_image_comes_first_and_loses_nothing(server: Server, engine: Engine) -> None:
    answers(engine, questions(2))
    for body in server.asked:
        picture, text = body["messages"][0]["content"]
        assert (picture["type"], text["type"]) == ("image_url", "text")
        assert picture.keys() == {"type", "image_url"}
        head, _, data = picture["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.mode == "RGB"
            assert image.tobytes() == RGB.tobytes()


def test_images_of_one_call_keep_apart(server: Server, engine: Engine) -> None:
    other = Request(Image.new("RGB", (8, 8)), "other", "And here?", 5)
    wait(engine.submit([*questions(), other]), LIMIT)
    urls = {said(body): body["messages"][0]["content"][0]["image_url"]["url"] for body in server.asked}
    assert len(set(urls.values())) == 2


def test_no_more_questions_are_under_way_than_allowed(server: Server) -> None:
    server.delay = 0.05
    engine = make(server, concurrency=3)
    engine.start()
    futures = [future for _ in range(4) for future in engine.submit(questions(3))]
    assert all(future.result(LIMIT).text for future in futures)
    engine.stop()
    assert server.most == 3


@pytest.mark.parametrize(
    ("reply", "at_least"),
    [((429, {"Retry-After": "0.7"}), 0.7), ((503, {}), 0.3), (CLOSE, 0.3), (HANG, 0.8)],
    ids=str,
)
def test_trouble_that_passes_is_waited_for(server: Server, engine: Engine, reply: Reply, at_least: float) -> None:
    server.replies.append(reply)
    assert answers(engine, questions())[0].text
    first, second = server.times
    assert second - first >= at_least


@pytest.mark.parametrize(("status", "tries"), [(400, 1), (422, 1), (429, 2), (500, 2)])
def test_a_refused_question_costs_only_itself(server: Server, engine: Engine, status: int, tries: int) -> None:
    server.always = lambda body: (status, {"Retry-After": "0.1"}) if "number 1" in said(body) else None
    good, refused, also_good = engine.submit(questions(3))
    error = failure(refused)
    assert isinstance(error, NoAnswerError)
    assert not isinstance(error, HolismError)
    assert str(error) == f"the server answered {status} - not with Bearer ***"
    assert good.result(LIMIT).text
    assert also_good.result(LIMIT).text
    assert sum("number 1" in said(body) for body in server.asked) == tries


@pytest.mark.parametrize(("status", "named"), [(401, VARIABLE), (403, VARIABLE), (404, MODEL)])
def test_a_server_that_refuses_all_ends_the_run(server: Server, engine: Engine, status: int, named: str) -> None:
    server.replies.append((status, {}))
    error = failure(engine.submit(questions())[0])
    assert isinstance(error, EngineError)
    assert named in str(error)
    assert len(server.asked) == 1


@pytest.mark.parametrize("reply", [CLOSE, HANG])
def test_a_server_that_is_gone_ends_the_run(server: Server, engine: Engine, reply: Reply) -> None:
    server.always = lambda _: reply
    error = failure(engine.submit(questions())[0])
    assert isinstance(error, EngineError)
    assert "no longer answers" in str(error)
    assert "start it again" in str(error)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "content", [{"error": {"message": "busy"}}, completion(None), "<html>hello</html>", {"choices": []}], ids=str
)
def test_what_is_no_completion_is_an_error_of_its_own(server: Server, engine: Engine, content: Any) -> None:
    server.complete = lambda _: content
    assert isinstance(failure(engine.submit(questions())[0]), NoAnswerError)


def test_the_version_is_what_the_server_says(server: Server, engine: Engine) -> None:
    assert engine.version == "vllm 1.2.3"
    server.version = None
    other = make(server)
    other.start()
    other.stop()
    assert other.version == "server"


def test_a_server_may_keep_its_models_to_itself(server: Server) -> None:
    server.models = 404
    engine = make(server)
    engine.start()
    assert answers(engine, questions())[0].text
    engine.stop()


@pytest.mark.parametrize(
    ("models", "says"),
    [
        (401, f"refuses the key in {VARIABLE}"),
        (403, f"refuses the key in {VARIABLE}"),
        (500, "the server answered 500"),
        ("<html>welcome</html>", "has no list of models"),
        ({"error": {"message": "who are you?"}}, "has no list of models"),
        ({"object": "list", "data": [{"id": "a/b"}, {"id": "c"}]}, "a/b, c"),
        ({"object": "list", "data": []}, "has none"),
    ],
)
def test_a_start_that_fails_says_why(server: Server, models: Any, says: str) -> None:
    server.models = models
    engine = make(server, retries=0)
    with pytest.raises(EngineError) as caught:
        engine.start()
    assert says in str(caught.value)
    assert KEY not in f"{caught.value!r} {engine!r} {vars(engine).get('config')!r}"
    with pytest.raises(EngineDiedError):
        answers(engine, questions())
    engine.stop()


def test_a_server_that_is_not_there_is_named_without_its_user(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConfigError, match="the variable that api_key_env names") as refused:
        make(server, base_url=f"http://{KEY}@127.0.0.1:{port}/v1?token={KEY}")
    assert KEY not in str(refused.value)
    engine = make(server, retries=0, base_url=f"http://127.0.0.1:{port}/v1")
    with pytest.raises(EngineError) as caught:
        engine.start()
    assert f"http://127.0.0.1:{port}/v1" in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_key_that_is_missing_or_broken_is_told_apart(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"{KEY}\n{KEY}")
    with pytest.raises(EngineError, match=f"{VARIABLE} holds characters") as caught:
        make(server).start()
    assert KEY not in str(caught.value)
    monkeypatch.delenv(VARIABLE)
    engine = make(server)
    engine.start()
    server.replies.append((401, {}))
    assert f"{VARIABLE} is not set" in str(failure(engine.submit(questions())[0]))
    engine.stop()
    assert server.keys == {"Bearer EMPTY"}


def test_a_stop_drops_what_is_under_way_and_a_start_begins_anew(server: Server) -> None:
    server.always = lambda _: HANG
    engine = make(server, concurrency=2, timeout_seconds=LIMIT)
    engine.start()
    futures = engine.submit(questions(5))
    while len(server.asked) < 2:
        time.sleep(0.01)
    began = time.monotonic()
    engine.stop()
    assert time.monotonic() - began < 2
    assert all(isinstance(failure(future), EngineDiedError) for future in futures)
    assert isinstance(failure(engine.submit(questions())[0]), EngineDiedError)
    engine.stop()
    assert len(server.asked) == 2  # those in the queue were never sent
    server.always = lambda _: None
    engine.start()
    assert answers(engine, questions())[0].text
    engine.stop()


def test_a_question_that_nobody_waits_for_is_not_asked(server: Server) -> None:
    server.delay = 0.2
    engine = make(server, concurrency=1)
    engine.start()
    first, second, third = engine.submit(questions(3))
    second.cancel()
    assert first.result(LIMIT).text
    assert third.result(LIMIT).text
    engine.stop()
    assert [said(body).strip() for body in server.asked] == ["What is number 0?", "What is number 2?"]


def test_a_run_goes_on_after_the_server_came_back_and_never_shows_the_key(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    made = world.workspace(tmp_path, images=8)
    config = world.config(engine=settings(server, retries=0, concurrency=1), models=[MODEL], chunk_images=2)
    server.always = lambda _: CLOSE if len(server.asked) > 15 else None
    with pytest.raises(EngineError, match="no longer answers") as caught:
        world.caption(made, config)
    refused = said(server.asked[-1])
    server.always = lambda body: (400, {}) if said(body) == refused else None
    manifest = world.caption(made, config)
    rows = world.rows(manifest, made)
    assert len(rows) == 8 * 3
    good = [row for row in rows if row["status"] == "ok"]
    bad = [row for row in rows if row["status"] != "ok"]
    assert good
    assert bad
    assert {row["error"] for row in bad} == {"NoAnswerError: the server answered 400 - not with Bearer ***"}
    assert {(row["engine"], row["engine_version"], row["model"], row["revision"]) for row in rows} == {
        ("openai", "vllm 1.2.3", MODEL, "served")
    }
    assert "chat/completions" in caplog.text  # the client's own log is on
    assert KEY not in f"{rows} {caught.value} {caplog.text} {capfd.readouterr()}"
    files = [path for path in (tmp_path / "ws").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["demo_vlm", "org/name", "anything", "./looks/like/a/folder"])
def test_a_model_is_a_name_of_the_servers(name: str) -> None:
    config = EngineConfig(kind="openai")
    assert resolve(ModelReference(model=name), config) == Model(name, "served", name, False)
    named = ModelReference(model=name, name="short", revision="v1")
    assert resolve(named, config) == Model("short", "v1", name, False)


def test_a_machine_without_the_client_says_what_to_install(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EngineError, match="pip install openai"):
        make(server)
