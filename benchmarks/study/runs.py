"""Runs of the study: a row and a seed make a configuration, and `holism run` does the rest.

All rows share a workspace, so that pictures are captioned once and a run that is there is not trained again. What
comes out of a run is kept as one Parquet file under ROOT/results.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.study.noise import write_noise
from flows.cli import main as holism
from flows.run import Session
from pipeline.config import load_yaml, merge
from pipeline.errors import HolismError
from pipeline.schemas import RESULTS

HERE = Path(__file__).parent
SPLITS = {"develop": ("develop",), "test": ("known", "new")}
TRUTH = {
    "name": "truth",
    "format": "parquet",
    "match": "key",
    "columns": {"image": "key", "text": "text", "perspective": "perspective", "granularity": "granularity"},
}


@dataclass(frozen=True)
class Row:
    """A recipe of the study, by what differs from recipe.yaml; {start} in it is the folder of the start's model."""

    name: str
    says: str
    train: Mapping[str, Any]
    curate: Mapping[str, Any]
    core: bool = False
    captions: str = "model"  # truth; or noisy: the truth with noise planted in it


def rows() -> dict[str, Row]:
    """All rows, in the order of rows.yaml."""
    found: dict[str, Any] = load_yaml(HERE / "rows.yaml")["rows"]
    return {name: Row(name=name, **{"train": {}, "curate": {}, **row}) for name, row in found.items()}


@dataclass(frozen=True)
class Study:
    """The study in one folder: its world, its workspaces, its results. `smaller` goes over every configuration."""

    root: Path
    smaller: Mapping[str, Any]

    def start(self) -> Path:
        """The model that rows start from; trained if it is not there."""
        config = self._write("start", self._over(load_yaml(HERE / "start.yaml")))
        _require(holism(["run", str(config), "--stages", "ingest,caption,curate,train"]), "the start")
        manifest = Session.open(str(config)).resolve()["train"].manifest
        assert manifest is not None
        return Path(manifest.store.removeprefix("file://"), manifest.detail["runs"]["start"]["folder"])

    def run(self, row: Row, seed: int, split: str) -> Path:
        """Train and measure a row unless its result is there; the file of its results."""
        result = self.root / "results" / f"{row.name}-{seed}-{split}.parquet"
        if result.exists():
            return result
        if row.captions == "noisy":
            write_noise(self.root / "world" / "train", self.root / "world" / "noise")
        config = self._write(f"{row.name}-{seed}-{split}", self.config(row, seed, split, self.start()))
        began, cpu = time.monotonic(), _cpu_seconds()
        _require(holism(["run", str(config)]), row.name)
        _keep(Session.open(str(config)), row, seed, split, result, time.monotonic() - began, _cpu_seconds() - cpu)
        return result

    def config(self, row: Row, seed: int, split: str, start: Path) -> dict[str, Any]:
        """The configuration of a run that starts from the model in a folder."""
        own: dict[str, Any] = {
            "curate": row.curate,
            "train": {"warm_start": str(start), "seed": seed, "runs": {row.name: row.train}},
            "evaluate": {"benchmarks": [str(self.root / "world" / name) for name in SPLITS[split]]},
        }
        if row.captions != "model":
            folders = {"truth": "train", **({"noise": "noise"} if row.captions == "noisy" else {})}
            tables = [{**TRUTH, "name": name, "path": str(self.root / "world" / of)} for name, of in folders.items()]
            own["caption"] = {"models": [], "tables": tables}
        return self._over(own)

    def _over(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration over recipe.yaml, and `smaller` over both."""
        return merge(merge(load_yaml(HERE / "recipe.yaml"), own), self.smaller)

    def _write(self, name: str, config: Mapping[str, Any]) -> Path:
        path = self.root / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config, indent=1).replace("{root}", str(self.root))
        path.write_text(text.replace("{start}", config["train"].get("warm_start", "")))
        return path


def _require(status: int, what: str) -> None:
    if status:
        raise HolismError(f"the study stopped at {what}; mend what is said above and run the same command again")


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _keep(session: Session, row: Row, seed: int, split: str, result: Path, seconds: float, cpu_seconds: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = session.resolve()
    train, evaluation = found["train"].manifest, found["evaluate"].manifest
    assert train is not None
    assert evaluation is not None
    (part,) = [part for part in evaluation.parts if part.name == "results.parquet"]
    table = evaluation.read(part, RESULTS)
    counts = train.counts[row.name]
    own = {
        "row": row.name,
        "seed": seed,
        "scored_on": split,
        "steps": counts["steps"],
        "images_seen": counts["images seen"],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
    }
    for name, value in own.items():
        table = table.append_column(name, pa.array([value] * table.num_rows))
    result.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, result, compression="zstd")
