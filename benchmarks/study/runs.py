"""Runs of the study: a row and a seed make a configuration, and `holism run` does the rest.

Rows that want the same captions, curated alike, share a base: a workspace in which the first three stages are done. A
run works in a copy of it, so runs may go side by side. What comes out of a run is one Parquet file under ROOT/results.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.noise import write_noise
from benchmarks.study.recipes import CLIP, OTHER_STARTS, WORLDS, Row, recipe, start_recipe
from flows.cli import main as holism
from flows.run import Session
from pipeline.config import merge
from pipeline.errors import HolismError
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.schemas import RESULTS

TABLE = {
    "format": "parquet",
    "match": "key",
    "columns": {"image": "key", "text": "text", "perspective": "perspective", "granularity": "granularity"},
}
BEFORE_TRAINING = "ingest,caption,curate"


@dataclass(frozen=True)
class Job:
    """A row, a seed and the scenes to score on."""

    row: Row
    seed: int
    split: str

    @property
    def name(self) -> str:
        return f"{self.row.name}-{self.seed}-{self.split}"


@dataclass(frozen=True)
class Study:
    """The study in one folder: its world, its workspaces, its results. `overrides` (`train.workers=4`) go over all."""

    root: Path
    overrides: tuple[str, ...] = ()

    def start(self, row: Row) -> str | None:
        """The weights that a row starts from; its world's myopic CLIP of its width is trained if it is not there."""
        if row.start != CLIP:
            return OTHER_STARTS[row.start]
        name = f"start-{row.width}" if row.world == "rendered" else f"start-{row.world}-{row.width}"
        config = self._write(name, self.start_config(row, name))
        if not self._session(config).resolve()["train"].done:
            self._holism(config, "the start", "--stages", f"{BEFORE_TRAINING},train")
        manifest = self._session(config).resolve()["train"].manifest
        assert manifest is not None
        return str(_model_of(manifest, "start"))

    def result(self, job: Job) -> Path:
        return self.root / "results" / f"{job.name}.parquet"

    def prepare(self, jobs: Iterable[Job]) -> None:
        """Make what several runs share, so that none waits for another. Raises HolismError without captions."""
        missing = [job for job in jobs if not self.result(job).exists()]
        for job in missing:
            if lack := self.missing_captions(job.row):
                raise HolismError(lack)
        for job in missing:
            self.start(job.row)
            self._base(job)

    def run(self, job: Job) -> Path:
        """Train and measure a row unless its result is there; the file of its results."""
        result = self.result(job)
        if result.exists():
            return result
        self.prepare([job])
        work = self.root / "work" / job.name
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(self._base(job), work)
        config = self._write(job.name, self.config(job, work, self.start(job.row)))
        _forget_peak()
        began, cpu = time.monotonic(), _cpu_seconds()
        self._holism(config, job.name, "--stages", "train")
        trained, cpu_of_training, memory = time.monotonic() - began, _cpu_seconds() - cpu, _peak_mib()
        self._holism(config, job.name, "--stages", "evaluate")
        costs = {
            "seconds": round(time.monotonic() - began, 1),
            "cpu_seconds": round(_cpu_seconds() - cpu, 1),
            "training_seconds": round(trained, 1),
            "training_cpu_seconds": round(cpu_of_training, 1),
            "memory_mib": memory,
        }
        _keep(self._session(config), job, result, costs)
        shutil.rmtree(work)
        return result

    def run_side_by_side(self, jobs: Sequence[Job], at_once: int) -> None:
        """Several runs at a time, a process and a log each; raises HolismError once all have ended, if some failed."""
        missing = [job for job in jobs if not self.result(job).exists()]
        self.prepare(missing)
        progress, failed = Progress("study", len(missing), "runs"), list[str]()
        with ThreadPoolExecutor(at_once) as pool:
            for job, status in zip(missing, pool.map(self._in_process, missing), strict=True):
                progress.update(1)
                if status:
                    failed.append(job.name)
        progress.close()
        if failed:
            raise HolismError(f"{', '.join(failed)} failed; {self.root / 'logs'} says why, then run this again")

    def start_config(self, row: Row, workspace: str) -> dict[str, Any]:
        """The configuration of a start. No caption is trained on, but stages want some; they lie beside the tars."""
        shared = start_recipe(row.world)
        beside = {"name": "start", "path": shared["ingest"]["source"]["path"], **TABLE}
        own = {
            "workspace": f"{{root}}/{workspace}",
            "caption": {"models": [], "tables": [beside]},
            "train": {"model": {"embed_dim": row.width}, "runs": {"start": {}}},
        }
        return merge(shared, own)

    def config(self, job: Job, workspace: Path, start: str | None) -> dict[str, Any]:
        """The configuration of a run that starts from the weights in a folder, or from nothing."""
        row = job.row
        tables = [{"name": name, "path": str(self.root / place), **TABLE} for name, place in row.tables.items()]
        own: dict[str, Any] = {
            "workspace": str(workspace),
            "caption": {"models": [], "tables": tables},
            "curate": row.curate,
            "train": {
                "model": {"embed_dim": row.width},
                "warm_start": start,
                "seed": job.seed,
                "runs": {row.name: row.train},
            },
            "evaluate": {**row.evaluate, "benchmarks": [str(self.root / name) for name in row.splits[job.split]]},
        }
        return merge(recipe(row.world), own)

    def _base(self, job: Job) -> Path:
        """A workspace with the stages before training; it bears the name of what decides them.

        No two worlds have captions of one name.
        """
        row = job.row
        folder = self.root / "bases" / digest([row.captions, dict(row.curate)])[:12]
        if not folder.exists():
            if "noise" in row.tables:
                write_noise(self.root / WORLDS[row.world].tables["truth"], self.root / row.tables["noise"])
            unfinished = folder.with_suffix(".part")
            config = self._write(f"base-{folder.name}", self.config(job, unfinished, self.start(row)))
            self._holism(config, "the captions", "--stages", BEFORE_TRAINING)
            unfinished.rename(folder)
        return folder

    def missing_captions(self, row: Row) -> str | None:
        """What a row lacks of the captions that it is trained on, and the command that makes it."""
        for name, place in row.tables.items():
            # Noise is made of the truth.
            needed = self.root / (WORLDS[row.world].tables["truth"] if name == "noise" else place)
            first = f"captions --name {name}" if place.startswith("captions/") else place.split("/")[0]
            if not needed.exists():
                return (
                    f"row {row.name} wants {needed}, which is not there; run python -m benchmarks.study {first} first"
                )
        return None

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        path = self.root / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=1).replace("{root}", str(self.root))
        path.write_text(text.replace("{start}", config["train"].get("warm_start") or ""))
        return path

    def _session(self, config: Path) -> Session:
        return Session.open(str(config), self.overrides)

    def _holism(self, config: Path, what: str, *options: str) -> None:
        sets = [word for item in self.overrides for word in ("--set", item)]
        if holism(["run", str(config), *options, *sets]):
            raise HolismError(f"the study stopped at {what}; mend what is said above and run the same command again")

    def _in_process(self, job: Job) -> int:
        log = self.root / "logs" / f"{job.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.study", "--root", str(self.root)]
        command += [word for item in self.overrides for word in ("--set", item)]
        command += ["run", job.row.name, "--seeds", str(job.seed), "--on", job.split]
        with log.open("w") as out:
            return subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode


def _model_of(train: Manifest, run: str) -> Path:
    """The model folder of a run."""
    return Path(train.store.removeprefix("file://"), train.detail["runs"][run]["folder"])


def _operations(model: Path, images: int) -> dict[str, float]:
    """GFLOP of the towers' passes, forward and backward: over one picture, and over a picture and its texts.

    Of texts the part that grows with their tokens counts, which is nearly all.
    """
    import torch

    from training.checkpoint import load
    from training.flops import count

    flops = count(load(str(model))[0], torch.device("cpu"))
    steps = (model.parent / "metrics.jsonl").read_bytes().splitlines()
    tokens = sum(json.loads(step)["tokens"] for step in steps) / images
    _, of_a_token, _ = flops.text
    return {"gflop_of_a_picture": flops.image / 1e9, "gflop_of_a_sample": (flops.image + tokens * of_a_token) / 1e9}


def _forget_peak() -> None:
    """Let the kernel begin anew with the most memory that this process has had; earlier runs were in it too."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    """The most memory of this process since `_forget_peak`, as Linux tells it; elsewhere no number."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((round(int(line.split()[1]) / 1024) for line in lines if line.startswith("VmHWM:")), math.nan)


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _keep(session: Session, job: Job, result: Path, costs: Mapping[str, float]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = session.resolve()
    train, evaluation = found["train"].manifest, found["evaluate"].manifest
    assert train is not None
    assert evaluation is not None
    (part,) = [part for part in evaluation.parts if part.name == "results.parquet"]
    table = evaluation.read(part, RESULTS)
    counts, model = train.counts[job.row.name], _model_of(train, job.row.name)
    own = {
        "row": job.row.name,
        "seed": job.seed,
        "scored_on": job.split,
        "steps": counts["steps"],
        "images_seen": counts["images seen"],
        "branch_cosine": counts["branch_cosine"],
        **costs,
        # A teacher's passes and crops are not counted, so where there are any nothing is said.
        **({} if "distillation" in job.row.train.get("losses", {}) else _operations(model, counts["images seen"])),
    }
    for name, value in own.items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    result.parent.mkdir(parents=True, exist_ok=True)
    unfinished = result.with_suffix(".part")
    pq.write_table(table, unfinished, compression="zstd")
    unfinished.rename(result)
