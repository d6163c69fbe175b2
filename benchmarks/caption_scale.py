"""Rate, memory and disk of the caption stage's machinery, with an engine that costs nothing.

With the fake engine all that is left is ours: Ray, work items, rows, Parquet, commits. So this shows what a caption
costs beside the model, and whether anything grows with the number of images. Every step is the command line in a
process of its own, watched from outside.

    python -m benchmarks.caption_scale --images 1000 10000 100000
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
TAR_IMAGES = 10_000
SIDE = 8
PAPER_PROMPTS = 7
ACTORS = 2
SAMPLE_SECONDS = 0.5
MIB = 2**20
COLUMNS = (
    "images", "captions", "ingest s", "caption s", "captions/s", "driver MiB", "actor MiB", "object store MiB",
    "parts", "disk MiB", "bytes/caption", "rerun s", "plan s",
)  # fmt: skip


@dataclass
class Peaks:
    """The most memory that a command's processes were seen with, in bytes."""

    driver: int = 0
    actor: int = 0
    object_store: int = 0

    def look(self, driver: psutil.Process) -> None:
        """Take the present figures in."""
        self.driver = max(self.driver, _rss(driver))
        for process in _children(driver):
            name = _name(process)
            if name.startswith("ray::") and "MapWorker" in name:
                self.actor = max(self.actor, _rss(process))
            elif "raylet/raylet" in name:
                self.object_store = max(self.object_store, _plasma(process.pid))


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _plasma(raylet: int) -> int:
    """Memory that Ray's object store really took: the blocks of the unlinked files that the raylet maps."""
    total = 0
    try:
        for descriptor in os.scandir(f"/proc/{raylet}/fd"):
            if "/plasma" in os.readlink(descriptor.path):
                total += os.stat(descriptor.path).st_blocks * 512
    except OSError:  # the raylet ended meanwhile
        return 0
    return total


def holism(*arguments: str, peaks: Peaks | None = None) -> tuple[float, str]:
    """Run the command line; returns wall seconds and what it printed. Raises if it fails."""
    command = [sys.executable, "-m", "flows.cli", *arguments]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    ended = threading.Event()

    def watch() -> None:
        driver = psutil.Process(process.pid)
        while peaks is not None and not ended.wait(SAMPLE_SECONDS):
            peaks.look(driver)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    printed, _ = process.communicate()
    seconds = time.monotonic() - started
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return seconds, printed


def pictures(count: int) -> Iterator[bytes]:
    """Tiny PNGs of noise, no two alike."""
    for number in range(count):
        noise = hashlib.shake_128(number.to_bytes(8)).digest(SIDE * SIDE * 3)
        data = io.BytesIO()
        Image.frombytes("RGB", (SIDE, SIDE), noise).save(data, "PNG", compress_level=1)
        yield data.getvalue()


def write_tars(folder: Path, count: int, tar_images: int = TAR_IMAGES) -> None:
    """WebDataset tars with so many pictures in all."""
    folder.mkdir(parents=True)
    source = pictures(count)
    for first in range(0, count, tar_images):
        with tarfile.open(folder / f"{first // tar_images:05d}.tar", "w") as tar:
            for number in range(first, min(first + tar_images, count)):
                data = next(source)
                member = tarfile.TarInfo(f"{number:09d}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_config(folder: Path, caption: dict[str, Any] | None = None) -> Path:
    """A configuration of these tars: the fake engine on two actors, the paper's prompts."""
    data = {
        "workspace": str(folder / "workspace"),
        "ingest": {"source": {"kind": "webdataset", "path": str(folder / "tars")}},
        "caption": {
            "engine": {"kind": "fake"},
            "prompts": {"set": "paper"},
            "ray": {"actors": {"max": ACTORS}},
            **(caption or {}),
        },
        "ray": {"num_cpus": ACTORS},
    }
    path = folder / "holism.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def measure(folder: Path, images: int) -> list[str]:
    """One row of the table."""
    started = time.monotonic()
    write_tars(folder / "tars", images)
    print(f"{images:,} pictures in {time.monotonic() - started:.0f} s", file=sys.stderr)
    config = str(write_config(folder))
    peaks = Peaks()
    ingest_seconds, _ = holism("ingest", config)
    caption_seconds, _ = holism("caption", config, peaks=peaks)
    rerun_seconds, said = holism("caption", config)
    if "nothing to do" not in said:
        raise SystemExit(f"the second run found something to do: {said}")
    plan_seconds, _ = holism("plan", config)
    manifest = json.loads(next((folder / "workspace/manifests").glob("caption-*.json")).read_bytes())
    captions = manifest["counts"]["captions"]
    if captions != PAPER_PROMPTS * images or manifest["counts"]["errors"]:
        raise SystemExit(f"{captions:,} captions of {images:,} images, expected {PAPER_PROMPTS * images:,}")
    files = [file for file in (folder / "workspace").rglob("*") if file.is_file()]
    disk = sum(file.stat().st_blocks * 512 for file in files)
    parquet = sum(part["bytes"] for part in manifest["parts"])
    return [
        f"{images:,}", f"{captions:,}", f"{ingest_seconds:.1f}", f"{caption_seconds:.1f}",
        f"{captions / caption_seconds:,.0f}", f"{peaks.driver / MIB:,.0f}", f"{peaks.actor / MIB:,.0f}",
        f"{peaks.object_store / MIB:,.1f}", f"{len(manifest['parts']):,}", f"{disk / MIB:,.1f}",
        f"{parquet / captions:.0f}", f"{rerun_seconds:.1f}", f"{plan_seconds:.1f}",
    ]  # fmt: skip


def main() -> None:
    """Measure every size in a folder of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1000], help="sizes to measure, one after the other")
    parser.add_argument("--folder", type=Path, help="where to work, and to keep what was made (default: temporary)")
    options = parser.parse_args()
    rows = []
    for images in options.images:
        folder = Path(tempfile.mkdtemp(prefix="holism-scale-", dir=options.folder))
        try:
            rows.append(measure(folder, images))
        finally:
            if options.folder is None:
                shutil.rmtree(folder)
        print(" | ".join(rows[-1]), file=sys.stderr)
    print("| " + " | ".join(COLUMNS) + " |\n|" + " ---: |" * len(COLUMNS))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
