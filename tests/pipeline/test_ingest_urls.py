"""URL lists through the real img2dataset, against a server on this machine: good, dead, slow and forbidden links."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.identity import image_id
from pipeline.ingest import downloads, shard_uris, urls
from pipeline.ingest.config import UrlSource
from pipeline.shards import ShardReader
from pipeline.storage import Location
from tests.pipeline.images import config, ingest, picture, put, rows
from tests.pipeline.sites import Site, links, url_list
from tests.processes import alive, family


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
