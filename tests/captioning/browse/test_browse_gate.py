"""Who the caption browser answers, and the security headers of every answer."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from small_workspace import caption, ingest, newest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from captioning.browse.app import create_app
from captioning.browse.gate import SECURITY, Rules
from pipeline.workspace import Workspace

PICTURE = "/image/part-000/picture_0010"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = ingest(tmp_path_factory.mktemp("gate"), images=12, shard_images=12)
    caption(made)
    return made


@pytest.fixture(scope="module")
def open_door(workspace: Workspace) -> Callable[..., TestClient]:
    """Makes visitors of a browser under some rules, by an address."""
    app = Route("/runs", lambda _: PlainTextResponse("runs"), name="runs")

    def visitor(rules: Rules | None = None, address: str = "http://127.0.0.1:8808") -> TestClient:
        made = create_app(workspace, lambda: newest(workspace), rules, extra_routes=[app])
        return TestClient(made, base_url=address)

    return visitor


def test_every_answer_has_the_security_headers(open_door: Callable[..., TestClient]) -> None:
    """Pictures above all: they are strangers' bytes, and a browser must not guess that they are a page."""
    client, refused = open_door(), open_door(address="http://evil.example")
    answers = [client.get(path) for path in (PICTURE, "/", "/images", "/style.css", "/runs", "/nothing", "/image/x/y")]
    answers.append(refused.get(PICTURE))
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 404, 404, 403]
    assert answers[0].headers["content-type"] == "image/jpeg"
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'none'"), answer.url
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert answer.headers["referrer-policy"] == "no-referrer", answer.url
        assert answer.headers["cross-origin-resource-policy"] == "same-origin", answer.url
        assert {name.lower() for name in SECURITY} <= set(answer.headers), answer.url


HERE_AND_NOW = ("127.0.0.1", "127.0.0.1:8808", "localhost:1", "LOCALHOST", "[::1]:8")
STRANGERS = ("", "evil.example", "evil.example:8808", "127.0.0.1.evil.example", "localhost.evil.example")
NONSENSE = ("[::1", "::1", "a b", "@", "evil.example\n127.0.0.1", "127.0.0.1:x", "127.0.0.1, evil.example", ":8808")
ELSEWHERE = ("192.0.2.8:1", "[2001:db8::7]:1", "0.0.0.0", "[::]")


@pytest.mark.parametrize(
    ("listens_on", "allowed", "known", "unknown"),
    [
        ("127.0.0.1", (), HERE_AND_NOW, (*STRANGERS, *NONSENSE, *ELSEWHERE)),
        (
            "127.0.0.1",
            ("photos.example", "2001:db8::9"),
            (*HERE_AND_NOW, "Photos.example:80", "[2001:db8::9]"),
            STRANGERS,
        ),
        ("192.0.2.7", (), (*HERE_AND_NOW, "192.0.2.7"), (*STRANGERS, *NONSENSE, *ELSEWHERE)),
        ("0.0.0.0", (), (*HERE_AND_NOW, *ELSEWHERE, socket.gethostname()), (*STRANGERS, *NONSENSE)),
        ("::", (), (*HERE_AND_NOW, *ELSEWHERE, socket.gethostname()), (*STRANGERS, *NONSENSE)),
    ],
)
def test_names_other_than_its_own_are_refused(
    listens_on: str, allowed: tuple[str, ...], known: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    rules = Rules.of(listens_on, listens_on, 8808, allowed)
    assert [host for host in known if not rules.know(host)] == []
    assert [host for host in unknown if rules.know(host)] == []


def test_a_refusal_has_no_caption_and_says_what_to_do(open_door: Callable[..., TestClient]) -> None:
    answer = open_door(address="http://evil.example:8808").get("/images")
    assert answer.status_code == 403
    assert "'evil.example:8808'" in answer.text
    assert "--allow-host" in answer.text
    assert len(answer.text) < 400
    allowed = open_door(Rules(names=frozenset({"evil.example"})), "http://evil.example:8808")
    assert allowed.get("/images").status_code == 200


@pytest.mark.parametrize("address", ["127.0.0.1", "127.3.2.1", "::1"])
def test_on_this_machine_no_token_is_asked_for(address: str) -> None:
    assert Rules.of(address, address, 8808).token is None


def test_beyond_loopback_pages_and_pictures_ask_for_the_token(open_door: Callable[..., TestClient]) -> None:
    rules = Rules.of("0.0.0.0", "0.0.0.0", 8808)
    assert rules.token != Rules.of("0.0.0.0", "0.0.0.0", 8808).token
    visitor = open_door(rules, "http://192.0.2.7:8808")
    for path in ("/", "/images", PICTURE, "/style.css", "/runs", "/?token=", "/?token=wr%C3%B6ng", "/images?token=x"):
        answer = visitor.get(path)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), path
        assert "token" in answer.text
    first = visitor.get(f"/?token={rules.token}")
    assert first.status_code == 200
    assert str(rules.token) not in first.text, "links carry no token"
    cookie = first.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    for path in ("/", "/images", PICTURE, "/style.css", "/runs"):
        assert visitor.get(path).status_code == 200, path
    visitor.cookies.clear()
    assert visitor.get("/").status_code == 403
    assert visitor.get("/", headers={"Cookie": f"{rules.cookie}=other"}).status_code == 403
    stranger = open_door(rules, "http://evil.example:8808").get(f"/?token={rules.token}")
    assert (stranger.status_code, "set-cookie" in stranger.headers) == (403, False), "a name is asked for as well"
