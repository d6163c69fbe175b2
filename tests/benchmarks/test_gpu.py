"""The one command for a GPU: runs anywhere at toy size, says what failed, and needs no more than its page lists."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import sections

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "benchmarks" / "gpu.md"
UNCOMPILED = [name for name in sections.SECTIONS if "compiled" not in name]

# Hides what is installed but for what is named.
HIDDEN = """
import importlib.machinery, pkgutil, sys

allowed = set(sys.argv[1].split())

class OnlyThese(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = importlib.machinery.PathFinder.find_spec(name, path, target)
        places = [found.origin or "", *(found.submodule_search_locations or [])] if found else []
        installed = any("site-packages" in place for place in places)
        return None if installed and name.partition(".")[0] not in allowed else found

sys.meta_path = [OnlyThese if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
for name in ("ray", "prefect", "vllm", "duckdb", "webdataset"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} is not hidden")
import training, evaluation, benchmarks.gpu.__main__
for package in (training, evaluation):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        __import__(module.name)
print("imported")
"""


def listed(heading: str) -> list[str]:
    """Names in backquotes of the page's list with this heading."""
    found = re.search(rf"^- \*\*{heading}\*\*(.*?)^(?:- |$)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found, heading
    return re.findall(r"`([\w-]+)`", found[1])


def test_imports_need_no_more_than_the_page_lists() -> None:
    there = [*listed("On the machine"), *listed("What those bring"), *listed("Modules of the wheels")]
    ours = ["pipeline", "training", "evaluation", "captioning", "benchmarks"]
    allowed = " ".join([*there, *ours]).replace("-", "_")
    command = [sys.executable, "-c", HIDDEN, allowed]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert run.stdout.split()[-1:] == ["imported"], run.stderr[-2000:]
    assert "No module named" not in run.stdout + run.stderr, "some libraries catch what they miss, and say it"


def test_all_sections_run_at_toy_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--out", str(tmp_path), "--device", "cpu", "--small", "--only", *UNCOMPILED]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["section"] for row in found["rows"]} == set(UNCOMPILED)
    assert found["machine"]["torch"] == torch.__version__
    table = (tmp_path / "gpu.md").read_text()
    assert all(gpu.line(row) in table for row in found["rows"])
    parity = next(row["figures"] for row in found["rows"] if row["section"] == "parity")
    assert parity["largest relative difference from the CPU"] == 0  # it is the CPU
    ratios = [row["figures"].get("pairs over open_clip's") for row in found["rows"]]
    assert len([ratio for ratio in ratios if ratio and ratio > 0]) == 2 * len(sections.SMALL.pairs)


def test_a_section_that_fails_ends_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: sections.Bench) -> Iterator[tuple[str, dict[str, float | str]]]:
        yield "first", {"ms": 1.0}
        raise torch.OutOfMemoryError("no room | at all")

    monkeypatch.setitem(sections.SECTIONS, "image tower", fails)
    names = ["image tower", "losses"]
    assert gpu.main(["--out", str(tmp_path), "--device", "cpu", "--small", "--only", *names]) == 1
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row["case"] for row in rows[:2]] == ["first", "the rest"]
    assert rows[1]["figures"] == {"failed": "OutOfMemoryError: no room | at all"}
    assert "no room / at all" in (tmp_path / "gpu.md").read_text()
    assert [row["section"] for row in rows[2:]] == ["losses"] * 6


def test_what_time_is_too_short_for_is_said(tmp_path: Path) -> None:
    assert gpu.main(["--out", str(tmp_path), "--device", "cpu", "--small", "--minutes", "0"]) == 0
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert {row["figures"]["left out"] for row in rows} == {"the time was over"}
    assert [row["section"] for row in rows] == list(sections.SECTIONS)
