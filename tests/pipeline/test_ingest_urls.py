"""URL lists through the real img2dataset, against a server on this machine: good, dead, slow and forbidden links."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.identity import image_id
from pipeline.ingest import download, downloads, shard_uris, urls
from pipeline.ingest.config import UrlSource
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.pipeline.images import config, ingest, picture, put, rows
from tests.processes import alive, family


class Site:
    """A server whose pages can be changed; it counts what it was asked for."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked[self.path] += 1
                if self.path.startswith("/slow"):
                    time.sleep(8)
                if self.path.startswith("/drip"):
                    self.drip()
                    return
                if self.path in site.redirects:
                    self.send_response(302)
                    self.send_header("Location", site.redirects[self.path])
                    self.end_headers()
                elif self.path in site.pages:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(site.pages[self.path])
                else:
                    self.send_error(404)

            def drip(self) -> None:
                """A byte every now and then, each in time."""
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    while True:
                        self.wfile.write(b"x")
                        time.sleep(0.2)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


def url_list(path: Path, given: list[str | None], texts: list[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"url": given, "caption": texts or [None] * len(given)}), path)
    return path


def links(path: Path, **settings: Any) -> dict[str, Any]:
    return {
        "kind": "urls",
        "path": str(path),
        "allow_private_addresses": True,
        "timeout": 3,
        "retries": 0,
        "threads": 4,
        **settings,
    }


@pytest.mark.slow
def test_links_become_shards_with_an_error_row_for_each_dead_one(tmp_path: Path, site: Site) -> None:
    for seed in range(4):
        site.pages[f"/{seed}.jpg"] = picture(seed)
    site.pages["/page.html"] = b"<html>no picture</html>"
    site.redirects["/moved.jpg"] = "/3.jpg"
    paths = ["/0.jpg", "/dead.jpg", "/1.jpg", "/slow.jpg", "/page.html", "/2.jpg", "/moved.jpg", "/0.jpg"]
    given = [*(site.url(path) for path in paths), "file:///etc/hostname", None]
    texts = [f"text {n}" for n in range(len(given))]
    section = config(links(url_list(tmp_path / "l.parquet", given, texts)), shard_images=4)
    manifest = ingest(tmp_path / "ws", section)
    found = rows(manifest)
    order = [0, 1, 2, 3, 7, 4, 5, 6, 8, 9]  # that of the list, whoever answered first; two rows have the same link
    assert [row["alt_text"] for row in found] == [texts[n] for n in order]
    assert [row["url"] or None for row in found] == [given[n] for n in order]
    assert [row["status"] == "ok" for row in found] == [n not in (1, 3, 4, 8, 9) for n in order]
    assert (site.asked["/0.jpg"], site.asked["/slow.jpg"]) == (1, 1)
    errors = {row["source"]: row["error"] for row in found if row["error"]}
    assert errors[site.url("/dead.jpg")] == "HTTP 404 (Not Found): the server has no such picture"
    assert "timed out" in errors[site.url("/slow.jpg")]
    assert errors[site.url("/page.html")] == "not an image: the server sent a web page (HTML) instead"
    assert errors["file:///etc/hostname"].startswith("refused: file: links are not opened")
    assert errors[""] == "there is no link in this row"
    reader = ShardReader(shard_uris(manifest))
    data = [reader.read(row["shard"], row["offset"], row["size"]) for row in found if row["status"] == "ok"]
    assert data == [picture(seed) for seed in (0, 1, 0, 2, 3)]
    assert found[0]["offset"] == found[4]["offset"]
    assert (manifest.counts["images"], manifest.counts["distinct_images"], manifest.counts["errors"]) == (5, 4, 5)
    assert "5 of 10 links could not be used" in manifest.warnings[0]
    assert not (Path(manifest.store) / "_download").exists()

    site.pages["/dead.jpg"] = picture(8)
    asked = site.asked.copy()
    assert ingest(tmp_path / "ws", section).digest == manifest.digest
    assert site.asked == asked
    retried = ingest(tmp_path / "ws", section, retry_failed=True)
    assert set((site.asked - asked).elements()) == {"/dead.jpg", "/slow.jpg", "/page.html"}  # the failed ones alone
    after = rows(retried)
    assert after[1]["status"] == "ok"
    assert after[1]["image_id"] == image_id(picture(8))
    assert [row for row in after if row["key"] != found[1]["key"]] == [r for r in found if r["key"] != found[1]["key"]]
    reader = ShardReader(shard_uris(retried))
    assert reader.read(after[1]["shard"], after[1]["offset"], after[1]["size"]) == picture(8)


def test_lists_in_many_files_and_their_captions(tmp_path: Path) -> None:
    url_list(tmp_path / "[1]" / "b.parquet", ["http://a/2", None], [["", "two", "zwei"], ["none"]])
    put(tmp_path / "[1]" / "a.tsv", 'url\tcaption\nhttp://a/0\t"Vertigo\n http://a/1 \t\n')
    for path in (tmp_path / "[1]", tmp_path / "[1]" / "*.*"):
        source = UrlSource(path=str(path))
        opened = urls.UrlList(source, Location.of(tmp_path / "store"), 1)
        assert [(item.name, item.alt_text) for item in opened.items()] == [
            ("http://a/0", '"Vertigo'),
            ("http://a/1", None),
            ("http://a/2", "two"),
            ("", "none"),
        ]
        assert opened.warnings[0].startswith(f"{path}: 1 row has more than one caption")
    before = urls.list_digest(source)
    put(tmp_path / "[1]" / "a.tsv", "url\tcaption\n")
    assert urls.list_digest(source) != before


@pytest.mark.slow
def test_private_addresses_are_refused_also_behind_names(tmp_path: Path, site: Site) -> None:
    site.pages["/a.jpg"] = picture(0)
    port = site.server.server_port
    given = [site.url("/a.jpg"), f"http://localhost:{port}/a.jpg", f"http://[::ffff:127.0.0.1]:{port}/a.jpg"]
    section = config(links(url_list(tmp_path / "l.parquet", given), allow_private_addresses=False))
    with pytest.raises(InputError, match=r"no link of .*refused: .* is at the private address .*run again"):
        ingest(tmp_path / "ws", section)
    assert not site.asked


def test_redirects_to_private_addresses_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.redirects["/out.jpg"] = f"http://localhost:{site.server.server_port}/secret"
    site.pages["/secret"] = b"secret"
    real = download.private_address
    monkeypatch.setattr(download, "private_address", lambda host: None if host == "127.0.0.1" else real(host))
    with pytest.raises(PermissionError, match=r"localhost is at the private .*allow_private_addresses"):
        download.opener(public_only=True).open(site.url("/out.jpg"), timeout=5)
    assert site.asked == {"/out.jpg": 1}
    assert download.opener(public_only=False).open(site.url("/out.jpg"), timeout=5).read() == b"secret"


def test_a_name_that_moves_after_it_was_looked_at_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/secret"] = b"secret"
    real = download.private_address
    monkeypatch.setattr(download, "private_address", lambda host: None if host == "localhost" else real(host))
    with pytest.raises(urllib.error.URLError, match="refused: localhost is at the private address"):
        download.opener(public_only=True).open(f"http://localhost:{site.server.server_port}/secret", timeout=5)
    assert not site.asked


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("::1", True),
        ("fe80::1", True),
        ("::ffff:192.168.0.1", True),
        ("0.0.0.0", True),
        ("224.0.0.1", True),
        ("2130706433", True),  # 127.0.0.1 as one number
        ("64:ff9b::7f00:1", True),  # NAT64 of 127.0.0.1
        ("64:ff9b::a00:1", True),
        ("64:ff9b:1::808:808", True),  # NAT64 of a site
        ("2002:7f00:1::1", True),  # 6to4 of 127.0.0.1
        ("2002:c0a8:1:2::3", True),
        ("2001:0:7f00:1::", True),  # Teredo
        ("::10.0.0.1", True),  # compatible
        ("::ffff:0:10.0.0.1", True),  # translated
        ("2a00:1450::5efe:10.0.0.1", True),  # ISATAP
        ("fec0::1", True),
        ("64:ff9b::808:808", False),  # where all there is has IPv6, names have such addresses
        ("2002:808:808::1", False),
        ("2a00:1450::5efe:8.8.8.8", False),
        ("1.1.1.1", False),
        ("2606:4700:4700::1111", False),
        ("name.invalid", False),
    ],
)
def test_which_addresses_are_private(host: str, private: bool) -> None:
    assert (download.private_address(host) is not None) == private


ADDRESSES = {
    "public.example": ["93.184.216.34", "2606:4700:4700::1111"],
    "mixed.example": ["93.184.216.34", "10.0.0.1"],
    "six.example": ["93.184.216.34", "::1"],
    "last.example": ["2606:4700:4700::1111", "93.184.216.34", "169.254.169.254"],
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server of ours; whoever tries to connect afterwards is told so by an error."""

    def resolve(host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 6, "", (address, port or 0)) for address in ADDRESSES[host]]

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError(f"would connect to {address[0]}:{address[1]}")

    monkeypatch.setattr(download.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(download.socket, "create_connection", connect)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("host", "private"), [("mixed.example", "10.0.0.1"), ("six.example", "::1"), ("last.example", "169.254.169.254")]
)
def test_a_name_with_one_private_address_among_others_is_refused(
    names: None, scheme: str, host: str, private: str
) -> None:
    """Which of its addresses a connection takes is not ours to choose."""
    with pytest.raises(PermissionError, match=f"refused: {host} is at the private address {private}"):
        download.opener(public_only=True).open(f"{scheme}://{host}/a.jpg", timeout=1)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_public_names_are_connected_to(names: None, scheme: str, port: int) -> None:
    with pytest.raises(urllib.error.URLError, match=f"would connect to public.example:{port}"):
        download.opener(public_only=True).open(f"{scheme}://public.example/a.jpg", timeout=1)


def test_a_redirect_to_https_is_looked_at_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.redirects["/out.jpg"] = f"https://localhost:{site.server.server_port}/secret"
    real = download.private_address
    monkeypatch.setattr(download, "private_address", lambda host: None if host == "127.0.0.1" else real(host))
    with pytest.raises(PermissionError, match="refused: localhost is at the private address"):
        download.opener(public_only=True).open(site.url("/out.jpg"), timeout=5)


@pytest.mark.slow
def test_all_links_dead_is_an_error_and_the_next_run_tries_again(tmp_path: Path, site: Site) -> None:
    section = config(links(url_list(tmp_path / "l.parquet", [site.url("/a.jpg"), site.url("/b.jpg")])))
    with pytest.raises(InputError, match=r"no link of .*l.parquet gave an image \(2 in all, most often: HTTP 404"):
        ingest(tmp_path / "ws", section)
    site.pages["/a.jpg"] = picture(0)
    manifest = ingest(tmp_path / "ws", section)
    assert (manifest.counts["images"], manifest.counts["errors"]) == (1, 1)


@pytest.mark.slow
def test_killed_while_downloading_leaves_nothing_running_and_continues(tmp_path: Path, site: Site) -> None:
    for seed in range(6):
        site.pages[f"/{seed}.jpg"] = site.pages[f"/slow{seed}.jpg"] = picture(seed)
    fast = [site.url(f"/{seed}.jpg") for seed in range(6)]
    source = links(
        url_list(tmp_path / "l.parquet", [*fast, site.url("/slow0.jpg"), site.url("/slow1.jpg")]), timeout=30
    )
    section = config(source, shard_images=2, workers=2)
    script = (
        "import sys, json\nfrom tests.pipeline.images import config, ingest\n"
        f"if __name__ == '__main__': ingest({str(tmp_path / 'ws')!r}, config({source!r}, shard_images=2, workers=2))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    wait_until(lambda: "/slow0.jpg" in site.asked, 240)
    children = family(process.pid)
    assert children
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(alive(child) for child in children), 60)
    manifest = ingest(tmp_path / "ws", section)
    assert [row["image_id"] for row in rows(manifest)] == [image_id(picture(n)) for n in (0, 1, 2, 3, 4, 5, 0, 1)]


def wait_until(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.parquet", None, "the URL list .*no.parquet is not there; expected a .parquet, .csv, .tsv, .jsonl table"),
        ("l.csv", "link,caption\nhttp://x,y\n", r"has no column 'url' \(url_column\); it has link, caption"),
        ("l.tsv", "url\ttext\nhttp://x\ty\n", r"has no column 'caption' \(caption_column\); it has url, text"),
        ("l.csv", "url,caption\n", "the URL list .*l.csv is empty; expected one link a row"),
        ("l.parquet", "nonsense", "l.parquet cannot be read as parquet"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    if content is not None:
        put(tmp_path / name, content)
    with pytest.raises(InputError, match=message):
        ingest(tmp_path / "ws", config(links(tmp_path / name)))


def test_a_list_as_the_world_has_it(tmp_path: Path, site: Site) -> None:
    """Links that browsers open, a row for every caption, and one server that never comes to an end."""
    site.pages |= {"/caf%C3%A9.jpg": picture(0), "/two%20words.jpg": picture(1), "/crop.jpg?w=8&h=6": picture(2)}
    site.pages |= {"/R&amp;D.jpg": picture(3), "/a.jpg": picture(4), "/b.jpg": picture(4)}
    site.redirects["/moved"] = "/café.jpg".encode().decode("latin-1")
    paths = ["/drip", "/café.jpg", "/two words.jpg", "/crop.jpg?w=8&amp;h=6", "/R&amp;D.jpg", "/moved", "/b.jpg"]
    given = [site.url(path) for path in [*paths, "/a.jpg", "/a.jpg#top", "/a.jpg", "/a.jpg ", "/x/../a.jpg"]]
    texts = [f"text {n}" for n in range(len(given))]
    section = config(links(url_list(tmp_path / "l.parquet", given, texts), link_seconds=1.5))
    began = time.monotonic()
    manifest = ingest(tmp_path / "ws", section)
    found = {row["alt_text"]: row for row in rows(manifest)}
    assert found["text 0"]["error"] == "timed out: not complete after 1.5 s (ingest.source.link_seconds)"
    assert [found[text]["status"] for text in texts[1:]] == ["ok"] * (len(texts) - 1)
    seeds = [0, 1, 2, 3, 0, *[4] * 6]
    assert [found[text]["image_id"] for text in texts[1:]] == [image_id(picture(seed)) for seed in seeds]
    assert site.asked["/a.jpg"] == site.asked["/drip"] == 1
    assert "6 rows have the picture of an earlier row (of 11 rows)" in " ".join(manifest.warnings)
    with tarfile.open(shard_uris(manifest)["000000"]) as tar:
        assert sum(name.endswith(".jpg") for name in tar.getnames()) == 5
    assert time.monotonic() - began < 1.5 + 20  # a process starts in some 2 s, or 10 on a busy machine


@pytest.mark.slow
def test_a_slow_link_costs_itself_and_no_other(tmp_path: Path, site: Site) -> None:
    """Of 151 links the first is slow; the others are there before it is given up."""
    site.pages |= {f"/{seed}.jpg": picture(seed) for seed in range(150)}
    given = [site.url("/drip"), *(site.url(f"/{seed}.jpg") for seed in range(150))]
    section = config(links(url_list(tmp_path / "l.parquet", given), link_seconds=6, threads=2))
    began, times = time.monotonic(), []
    threading.Thread(target=lambda: times.append(_until(lambda: len(site.asked) == 151)), daemon=True).start()
    found = rows(ingest(tmp_path / "ws", section))
    assert [row["status"] for row in found] == ["error", *["ok"] * 150]
    assert times[0] - began < time.monotonic() - began - 2


def _until(condition: Any) -> float:
    wait_until(condition, 60)
    return time.monotonic()


@pytest.mark.slow
def test_a_process_that_dies_goes_on_with_what_is_left(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages |= {f"/slow{seed}.jpg": picture(seed) for seed in range(4)} | {"/0.jpg": picture(9)}
    given = [site.url("/0.jpg"), *(site.url(f"/slow{seed}.jpg") for seed in range(4))]
    started: list[subprocess.Popen[bytes]] = []
    run = downloads._run
    monkeypatch.setattr(downloads, "_run", lambda *given: started.append(run(*given)) or started[-1])

    def kill() -> None:
        wait_until(lambda: site.asked["/slow3.jpg"] == 1, 60)
        started[0].kill()

    threading.Thread(target=kill, daemon=True).start()
    section = config(links(url_list(tmp_path / "l.parquet", given), timeout=20, threads=8))
    assert [row["status"] for row in rows(ingest(tmp_path / "ws", section))] == ["ok"] * 5
    assert (len(started), site.asked["/0.jpg"], site.asked["/slow0.jpg"]) == (2, 1, 2)


def test_img2dataset_that_stops_is_reported_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "bin" / "img2dataset" / "__init__.py", "raise ImportError('no module imghdr here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "bin"))
    section = config(links(url_list(tmp_path / "l.parquet", ["http://127.0.0.1:9/a.jpg"])))
    with pytest.raises(InputError, match=r"img2dataset stopped \(exit status 1\): ImportError: no module imghdr here"):
        ingest(tmp_path / "ws", section)
