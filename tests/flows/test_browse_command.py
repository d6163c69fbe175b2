"""`holism browse CONFIG`: it shows what this configuration made, and says so where it shows something else."""

from __future__ import annotations

import base64
import hashlib
import html
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from starlette.testclient import TestClient

from captioning.browse.app import create_app
from flows.browse import report_route, results
from flows.cli import main
from flows.run import Session
from tests.flows.project import write_project

OURS, THEIRS = "model-ours", "model-theirs"  # in the tables: fake:model-ours


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, Path]:
    """Two configurations of one workspace: other models, other questions, another rule of curation."""
    ours = write_project(tmp_path, train=6, heldout=2)
    data = yaml.safe_load(ours.read_text())
    data["caption"]["models"] = [OURS, "fake"]
    ours.write_text(yaml.safe_dump(data))
    data["caption"] |= {"models": [THEIRS, "fake"], "prompts": {"set": "holism"}}
    data["curate"] = {"reject": {"max_run": 1}}
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(yaml.safe_dump(data))
    return ours, theirs


def run(config: Path, stages: str, *more: str) -> None:
    assert main(["run", str(config), "--stages", stages, *more]) == 0


def look(config: Path, *overrides: str) -> str:
    """What a person reads on the first page of a configuration's browser."""
    session = Session.open(str(config), overrides)
    app = create_app(session.workspace, lambda: results(session))
    answer = TestClient(app, base_url="http://127.0.0.1").get("/")
    app.state.catalog.close()
    assert answer.status_code == 200
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)))


def test_it_shows_the_results_of_its_configuration_whoever_ran_last(project: tuple[Path, Path]) -> None:
    ours, theirs = project
    for config in project:
        run(config, "ingest,caption,curate")
    text = look(ours)
    assert "84 captions" in text, "six images, two models, seven questions"
    assert OURS in text
    assert THEIRS not in text
    assert "earlier" not in text
    other = look(theirs)
    assert THEIRS in other
    assert OURS not in other
    assert "earlier" not in other


def test_a_stale_stage_shows_earlier_results_with_a_note_and_the_command(project: tuple[Path, Path]) -> None:
    ours, theirs = project
    run(ours, "ingest,caption,curate")
    run(theirs, "caption,curate")
    text = look(ours, "curate.reject.max_run=5")
    assert "These verdicts are earlier ones" in text
    assert "reject.max_run was 2 and is 5" in text, "of our two results of curation it is that of our captions"
    assert f"holism curate {ours} --set curate.reject.max_run=5 makes them" in text
    assert "These captions" not in text
    assert OURS in text
    assert THEIRS not in text

    changed = look(ours, "caption.sampling.max_tokens=9")
    assert "These captions are earlier ones" in changed
    assert "sampling.max_tokens was None and is 9" in changed
    assert f"holism caption {ours} --set caption.sampling.max_tokens=9 makes them" in changed
    assert "These verdicts are earlier ones" in changed
    assert (f"fake:{OURS}" in changed) != (f"fake:{THEIRS}" in changed), "of one configuration, not of both"


def test_pictures_that_came_later_do_not_bring_another_configuration_s_images(project: tuple[Path, Path]) -> None:
    ours, theirs = project
    data = yaml.safe_load(theirs.read_text())
    data["ingest"]["source"]["path"] = str(ours.parent / "scenes" / "heldout")
    theirs.write_text(yaml.safe_dump(data))
    run(ours, "ingest,caption")
    run(theirs, "ingest,caption")
    added = next((ours.parent / "scenes" / "train").rglob("*.jpg"))
    (added.parent / "new.jpg").write_bytes(added.read_bytes())
    text = look(ours)
    assert "6 images" in text, "theirs are two"
    assert "These images are earlier ones" in text
    assert "what it reads from outside has changed" in text
    assert f"holism ingest {ours} makes them" in text
    assert OURS in text
    assert THEIRS not in text
    assert f"No verdicts yet: holism curate {ours} makes them" in text


def test_nothing_to_browse_names_the_command(project: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ours, _ = project
    assert main(["browse", str(ours), "--port", "0"]) == 2
    assert f"holism ingest {ours}" in capsys.readouterr().err


@pytest.fixture
def served(project: tuple[Path, Path], tmp_path: Path) -> Iterator[tuple[str, list[str], Path]]:
    """`holism browse` for everybody: its address, what it said before, and its temporary folder."""
    ours, theirs = project
    run(ours, "ingest,caption")
    run(theirs, "caption")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "flows.cli", "browse", str(ours), "--host", "0.0.0.0", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--allow-host", "photos.example"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    said: list[str] = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if line.startswith("browse http"):
                break
        yield said[-1].split()[1], said[:-1], temporary
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0  # how a server is stopped
    assert [*temporary.iterdir()] == []


def test_beyond_loopback_it_warns_and_the_printed_address_is_the_way_in(served: tuple[str, list[str], Path]) -> None:
    address, said, temporary = served
    assert any("warning" in line and "anybody who has the address with its token" in line for line in said)
    assert any("note: No verdicts yet" in line for line in said)
    parts = urlsplit(address)
    assert re.fullmatch(r"token=[\w-]{20,}", parts.query)
    assert parts.port is not None

    def ask(path: str, host: str, cookie: str = "") -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=30)
        connection.request("GET", path, headers={"Host": host, "Cookie": cookie})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Set-Cookie", ""), answer.read().decode(errors="replace")

    assert ask("/images", parts.netloc)[0] == 403
    status, cookie, page = ask(f"/?{parts.query}", parts.netloc)
    assert status == 200
    assert OURS in page
    assert THEIRS not in page
    picture = re.findall(r'src="(/image/[^"]+)"', ask("/images", "photos.example", cookie)[2])[0]
    assert ask(picture, "192.0.2.7", cookie)[0] == 200
    assert ask(picture, "192.0.2.7")[0] == 403
    assert ask("/images", "evil.example", cookie)[0] == 403
    assert [*temporary.rglob("*.duckdb")] != []


def test_a_file_is_found_by_the_name_it_came_with(project: tuple[Path, Path]) -> None:
    ours, _ = project
    run(ours, "ingest")
    session = Session.open(str(ours))
    app = create_app(session.workspace, lambda: results(session))
    found = TestClient(app, base_url="http://127.0.0.1").get("/images?q=00003.JPG").text
    app.state.catalog.close()
    assert found.count('class="card"') == 1
    assert "000<mark>003.jpg</mark>" in found or "0<mark>00003.jpg</mark>" in found


def test_the_report_of_evaluation_is_served_with_its_styles(project: tuple[Path, Path]) -> None:
    ours, _ = project
    batch = "train.global_batch=4"
    session = Session.open(str(ours), [batch])
    app = create_app(session.workspace, lambda: results(session), extra_routes=[report_route(session)])
    client = TestClient(app, base_url="http://127.0.0.1")
    missing = client.get("/report")
    assert missing.status_code == 404
    assert f"holism evaluate {ours} --set {batch}" in missing.text
    run(ours, "ingest,caption,curate,train,evaluate", "--set", batch)
    assert '<a href="/report">Report</a>' in client.get("/").text
    answer = client.get("/report")
    app.state.catalog.close()
    assert "what the models see" in answer.text
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert answer.headers["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
