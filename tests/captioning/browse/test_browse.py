"""The caption browser: what it shows, that strangers' words stay words, and how it says what is wrong."""

from __future__ import annotations

import html
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
import small_workspace
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_workspace import ALT_SCRIPT, DROPPED, REPAIRED, SCRIPT, STRANGE_KEYS, caption, curate, ingest, newest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from captioning.browse.app import MAX_TEXT, create_app
from captioning.browse.queries import PAGE_IMAGES, STATUSES, Filters, histogram
from captioning.browse.results import Results
from captioning.browse.server import serve
from pipeline.errors import ConfigError, MissingInputError
from pipeline.identity import image_id
from pipeline.ingest import shard_images, shard_names
from pipeline.workspace import Workspace

LONG = "kite " * 200_000  # 1 MB


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = ingest(tmp_path_factory.mktemp("browse"))
    caption(workspace)
    curate(workspace)
    return workspace


@pytest.fixture(scope="module")
def client(curated: Workspace) -> TestClient:
    extra = [Route("/runs", lambda _: PlainTextResponse("runs"), name="training runs")]
    return visitor(curated, extra_routes=extra)


def visitor(workspace: Workspace, **options: Any) -> TestClient:
    """Somebody who looks at the newest results of a workspace from this machine."""
    return TestClient(create_app(workspace, lambda: newest(workspace), **options), base_url="http://127.0.0.1:8808")


@pytest.fixture(scope="module")
def served(curated: Workspace) -> Iterator[str]:
    """The address of the real server, in a process of its own."""
    code = (
        "import sys; from captioning.browse.server import serve; from pipeline.workspace import Workspace; "
        "from small_workspace import newest; ws = Workspace(sys.argv[1]); serve(ws, lambda: newest(ws), port=0)"
    )
    command = [sys.executable, "-c", code, str(curated.root)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    try:
        assert process.stdout is not None
        assert "30 images, 203 captions" in process.stdout.readline()
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        process.wait(timeout=30)


def page(client: TestClient, address: str) -> str:
    """The HTML of a page that is there."""
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def fetch(address: str) -> tuple[int, Any, bytes]:
    """Status, headers and body, as a browser gets them."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def words_of(page: str) -> str:
    """What a person reads on a page."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def listed(page: str) -> int:
    """How many images a page says there are."""
    match = re.search(r"([\d,]+) images?\b", words_of(page))
    assert match is not None
    return int(match[1].replace(",", ""))


def test_overview_counts_what_is_there(client: TestClient) -> None:
    text = words_of(page(client, "/"))
    assert "30 images 3 shards, 30 different pictures" in text or "30 images 3 shards, 29 different pictures" in text
    assert "203 captions" in text
    assert "1 unreadable" in text
    assert "1 failed" in text
    for _, _, reason in DROPPED.values():
        assert reason.replace("_", " ") in text
    assert "training runs" in text.lower(), "extra routes are linked"
    assert client.get("/runs").text == "runs"


def test_images_show_kept_dropped_and_cleaned_captions(client: TestClient) -> None:
    first = page(client, "/images")
    assert first.count('<article class="card">') == PAGE_IMAGES
    dropped = re.findall(r'class="caption dropped"><span class="text">(.*?)</span>', first)
    assert html.escape(str(DROPPED[0, "detail"][0]), quote=False) in [
        html.unescape(d).replace("&", "&amp;") for d in dropped
    ]
    assert REPAIRED[2, "detail"][2] in words_of(first)
    second = page(client, "/images?page=2")
    assert second.count('<article class="card">') == 30 - PAGE_IMAGES
    assert "There is no such page" in page(client, "/images?page=99")


def test_nothing_a_stranger_wrote_becomes_markup(client: TestClient) -> None:
    first = quote(STRANGE_KEYS[0], safe="")
    pages = ["/images", "/images?page=2", f"/images/part-000/{first}", "/images/part-001/picture_0010", "/"]
    pages += [f"/images?q={quote(SCRIPT)}", f"/images?reason={quote(SCRIPT)}", f"/images/{quote(SCRIPT, safe='')}/x"]
    seen = ""
    for address in pages:
        answer = client.get(address)
        assert "<script" not in answer.text.lower()
        assert "onerror=" not in re.sub(r"&lt;.*?&gt;", "", answer.text)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        seen += words_of(answer.text)
    assert SCRIPT in seen, "it is shown as the text it is"
    assert ALT_SCRIPT in seen
    assert STRANGE_KEYS[0] in seen


def test_every_picture_is_served_from_its_tar_whatever_its_key(curated: Workspace, served: str) -> None:
    """Over HTTP: the test client decodes addresses twice, which the strangest keys do not survive."""
    manifest = curated.manifests("ingest")[0]
    rows = [row for shard in shard_names(manifest) for row in shard_images(manifest, shard).to_pylist()]
    assert {row["key"] for row in rows} >= set(STRANGE_KEYS)
    assert served.startswith("http://127.0.0.1:")
    for row in rows:
        place = f"{row['shard']}/{quote(row['key'], safe='')}"
        status, headers, shown = fetch(f"{served}/images/{place}")
        assert status == 200
        status, headers, data = fetch(f"{served}/image/{place}")
        if row["status"] == "error":
            assert status == 404
            assert row["error"] in words_of(shown.decode())
            continue
        assert image_id(data) == row["image_id"]
        assert headers["content-type"] == ("image/png" if row["format"] == "PNG" else "image/jpeg")
        version = row["image_id"][:12]
        assert f'src="/image/{place}?v={version}"' in shown.decode(), "the page links its picture"
        assert "immutable" in fetch(f"{served}/image/{place}?v={version}")[1]["cache-control"]
        assert "immutable" not in fetch(f"{served}/image/{place}?v=other")[1]["cache-control"]


@pytest.mark.parametrize(
    "address",
    ["/image/part-000/nobody", "/image/nowhere/-", "/images/part-000/nobody", "/nothing", "/image/part-000/"]
    + [f"/image/part-000/{quote(path, safe='')}" for path in ("../../../../etc/passwd", "/etc/passwd", "..", "\0")],
)
def test_what_is_not_there_is_not_found(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_filters_show_what_they_say(client: TestClient) -> None:
    every = listed(page(client, "/images"))
    assert every == 30
    refused = page(client, "/images?reason=refusal")
    assert listed(refused) == 1
    assert re.findall(r'class="caption (\w+)"', refused) == ["dropped"], "only captions that fit are shown"
    assert "6 more" in words_of(refused)
    assert listed(page(client, "/images?verdict=kept")) == 29
    assert listed(page(client, "/images?status=image_error")) == 1
    assert listed(page(client, "/images?status=caption_error")) == 1
    assert listed(page(client, "/images?perspective=style&verdict=dropped")) == 1
    style = page(client, "/images?perspective=style")
    assert set(re.findall(r"<dt>([\w ]+)</dt>", style)) == {"alt text", "style"}
    assert listed(page(client, "/images?perspective=nothing")) == 0


def test_search_finds_texts_alt_texts_keys_and_file_names_and_takes_them_literally(client: TestClient) -> None:
    assert listed(page(client, "/images?q=" + quote("CALM SEA"))) == 1
    assert "<mark>calm sea</mark>" in page(client, "/images?q=" + quote("CALM SEA"))
    assert listed(page(client, "/images?q=" + quote(ALT_SCRIPT))) == 1
    assert listed(page(client, "/images?q=picture_0012")) == 1
    assert listed(page(client, "/images?q=" + quote("%"))) == 2, "no wildcard: the two keys with a percent sign"
    assert listed(page(client, "/images?q=" + quote("' OR 1=1 --"))) == 0
    assert listed(page(client, "/images?perspective=detail&q=" + quote("for sale"))) == 0, "alt text is no detail"


def test_sorting_by_diversity(client: TestClient) -> None:
    for sort, ordered in (("diverse", sorted), ("alike", lambda values: sorted(values, reverse=True))):
        shown = [float(value) for value in re.findall(r"similarity (\d\.\d+)", page(client, f"/images?sort={sort}"))]
        assert len(shown) == PAGE_IMAGES
        assert shown == ordered(shown)


def test_a_text_of_a_megabyte_is_shown_cut_with_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_workspace, "STRANGE_KEYS", (LONG, "short"))
    monkeypatch.setattr(small_workspace, "ALT_SCRIPT", LONG)
    for prompt in small_workspace.PROMPTS:
        monkeypatch.setitem(small_workspace.PLANTED, (0, prompt), (LONG, "stop", ""))
    workspace = ingest(tmp_path, images=3)
    caption(workspace)
    client = visitor(workspace)
    listing = client.get("/images").text
    assert LONG[:MAX_TEXT] in listing
    captions = listing.count("… (cut: 1,000,000 characters)")
    assert captions >= 7, "ingest cuts keys itself, and leaves such an alt text out"
    page, picture = re.findall(r'(?:href|src)="(/images?/part-[^"]*kite[^"]*)"', listing)[:2]
    shown = client.get(page)
    assert shown.status_code == 200
    assert client.get(picture).headers["content-type"] == "image/jpeg"
    results = client.get("/images", params={"q": "kite kite"}).text
    assert "<mark>kite kite</mark>" in results
    for text in (listing, shown.text, results, client.get("/images", params={"q": LONG[:20_000]}).text):
        assert len(text) < 200_000
    assert client.get(f"/images/part-000/{quote('sha256:' + '0' * 64)}").status_code == 404


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "q": st.text(max_size=5) | st.sampled_from(["boat", "%", "'"]),
        "perspective": st.sampled_from(["", "style", "none"]),
        "verdict": st.sampled_from(["", "kept", "dropped", "open"]),
        "reason": st.sampled_from(["", "refusal", "x"]),
        "model": st.sampled_from(["", "demo"]),
        "status": st.sampled_from(["", "bad", *STATUSES]),
        "sort": st.sampled_from(["", "bad", "diverse"]),
        "page": st.text(max_size=4) | st.integers(-3, 99).map(str),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FIELDS)
def test_any_question_is_answered_and_keeps_its_address(client: TestClient, fields: dict[str, str]) -> None:
    assert client.get("/images", params=fields).status_code == 200
    filters = Filters.of(fields)
    assert Filters.of(dict(parse_qsl(urlsplit(filters.url(page=filters.page)).query))) == filters


@given(st.dictionaries(st.integers(1, 500), st.integers(1, 50), min_size=1))
def test_histograms_lose_nothing(counts: dict[int, int]) -> None:
    bars = histogram(counts)
    assert sum(count for _, count in bars) == sum(counts.values())
    assert 1 <= len(bars) <= 24


def test_captions_without_verdicts_and_images_without_captions(tmp_path: Path) -> None:
    workspace = ingest(tmp_path, images=12)
    client = visitor(workspace)
    assert "Nothing of caption. Nothing of curate." in words_of(page(client, "/"))
    assert listed(page(client, "/images")) == 12
    caption(workspace)
    client.app.state.catalog._looked = 0.0  # instead of waiting for the next look
    text = words_of(page(client, "/"))
    assert "77 captions" in text
    assert "Nothing of curate." in text
    shown = page(client, "/images")
    assert 'class="caption open"' in shown
    assert 'class="caption dropped"' not in shown
    assert "as the engine" not in shown


def test_problems_are_one_sentence(tmp_path: Path, curated: Workspace) -> None:
    empty = Workspace(str(tmp_path / "empty"))
    with pytest.raises(MissingInputError, match=r"nothing to browse .* Nothing of ingest"):
        serve(empty, lambda: newest(empty), port=0)
    workspace = ingest(tmp_path, images=3)
    caption(workspace)
    part = workspace.manifests("caption")[0].select("captions/")[0]
    workspace.manifests("caption")[0].location(part).remove()
    answer = visitor(workspace).get("/")
    assert answer.status_code == 503
    assert "is gone; make it again: holism caption CONFIG" in answer.text
    assert part.name in answer.text
    assert "Traceback" not in answer.text


def test_a_tar_that_is_gone_is_named(tmp_path: Path) -> None:
    workspace = ingest(tmp_path, images=3)
    client = visitor(workspace)
    for tar in (tmp_path / "tars").iterdir():
        tar.unlink()
    answer = client.get("/image/part-000/" + quote(STRANGE_KEYS[1], safe=""))
    assert answer.status_code == 503
    assert "part-000" in answer.text
    assert "not at" in answer.text


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use .* --port {port + 1}"):
            serve(Workspace("memory://nothing"), lambda: Results({}), port=port)
