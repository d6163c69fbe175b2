"""Quality of the kinds of branch: short trainings from one warm start, on scenes captioned by their truth.

    python -m benchmarks.branch_kinds --folder FOLDER --run mlp --seed 0     # once for each run and seed
    python -m benchmarks.branch_kinds --folder FOLDER --table

The recipe is the demo's (configs/demo.yaml: eight branches, M2M and the served term, from the demo VLM's image tower)
with a projection for each branch, the data its 2,000 training and 500 held-out scenes; only the captions are not a
model's but the scenes' truth, one an image and slot. Results go to FOLDER/results.jsonl, a line a run.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from evaluation import benchmarks
from evaluation.branches import matrix
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.measure import evaluate
from evaluation.task import Evaluation
from pipeline import schemas
from pipeline.config import build
from pipeline.demo_world import answer
from pipeline.demo_world.write import write_world
from pipeline.identity import image_id
from pipeline.shards import ShardReader
from pipeline.storage import Location
from training.bundles import Bundles, in_memory
from training.config import RunConfig
from training.index.piece import piece_of
from training.ranks import Ranks
from training.trainer import Trained, train

RECIPE = "configs/demo.yaml"
RUNS: dict[str, dict[str, Any]] = {
    "cls": {},
    "cls, full": {"isolation": "full"},
    "mlp": {"branch_kind": "mlp"},
    "query": {"branch_kind": "query"},
    "query, 1 block": {"branch_kind": "query", "branch_blocks": 1},
    "cls, second score": {"losses": {"m2m": 1.0, "served": 1.0, "text_conditioned": 1.0}},
}
TRAINING, HELDOUT = 2000, 500


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--run", choices=RUNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args(arguments)
    results = options.folder / "results.jsonl"
    if options.run:
        row = run(options.folder, options.run, options.seed, options.epochs)
        with results.open("a", encoding="utf8") as handle:
            handle.write(json.dumps(row) + "\n")
        print(json.dumps(row, indent=1))
    if options.table:
        report([json.loads(line) for line in results.read_text(encoding="utf8").splitlines()])


def run(folder: Path, name: str, seed: int, epochs: int) -> dict[str, Any]:
    """One training and its evaluation on the held-out scenes, as a row of figures."""
    write_world(folder / "scenes", TRAINING, HELDOUT, seed=0)
    recipe = yaml.safe_load(Path(RECIPE).read_text(encoding="utf8"))["train"]
    recipe = {key: value for key, value in recipe.items() if key != "runs"}
    changes = {"projection": "branch", "epochs": epochs, "seed": seed, "checkpoint_every": 10**6, "workers": 0}
    changes |= RUNS[name]
    config = build(RunConfig, {**recipe, **changes}, source=name)
    bundles, reader = data(folder, config)
    began = time.monotonic()
    place = Location.of(folder / "runs" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}")
    trained = train(name, config, bundles, reader, place, Ranks(0, 1, torch.device("cpu")))
    seconds = time.monotonic() - began
    return {"run": name, "seed": seed, "epochs": epochs, "seconds": seconds, **figures(folder, config, trained)}


def data(folder: Path, config: RunConfig) -> tuple[Bundles, ShardReader]:
    """The training scenes in a tar, and for each a caption of every slot, worded by a seed of its own."""
    import pyarrow.parquet as pq

    rows = []
    with tarfile.open(folder / "train.tar", "w") as tar:
        for number, row in enumerate(pq.read_table(folder / "scenes" / "train_truth.parquet").to_pylist()):
            picture = (folder / "scenes" / "train" / row["file"]).read_bytes()
            info = tarfile.TarInfo(row["file"])
            info.size = len(picture)
            tar.addfile(info, io.BytesIO(picture))
            start = tar.offset - (len(picture) + 511) // 512 * 512
            place = {"shard": "train", "key": row["file"], "image_id": image_id(picture), "offset": start}
            rows.append({**place, "size": len(picture), "captions": captions(row, config, number)})
    table = schemas.table(schemas.BUNDLES, rows)
    return in_memory([piece_of(table, config.slots)]), ShardReader({"train": str(folder / "train.tar")})


def captions(row: dict[str, Any], config: RunConfig, number: int) -> list[dict[str, Any]]:
    truth, rng = json.loads(row["truth"]), np.random.default_rng(number)
    blank = {"caption_id": None, "source": "caption", "level": None, "weight": 1.0, "n_tokens": None}
    return [
        {
            **blank,
            "perspective": slot.perspective,
            "granularity": slot.granularity or "sentence",
            "text": row["alt_text"] if slot.name == "alt_text" else answer(truth, slot.name, rng),
        }
        for slot in config.slots
    ]


def figures(folder: Path, config: RunConfig, trained: Trained) -> dict[str, Any]:
    """Means over tasks and over perspectives, for the served vector and, where there is one, the second score."""
    from training.model import make_tokenizer
    from training.preprocess import make_preprocess, preprocessing

    model = trained.model
    preprocess = make_preprocess(preprocessing(model.visual.image_size[0], config.image_mean, config.image_std))
    identity = f"{time.time_ns()}"  # no features of an earlier model are to be found
    encoder = Encoder("run", identity, identity, model, preprocess, make_tokenizer(model.architecture), model.slots)
    settings = EvaluateConfig(benchmarks=(str(folder / "scenes" / "heldout"),), bootstrap_samples=100, device="cpu")
    benchmark = benchmarks.read_all(settings.benchmarks)[0]
    found = evaluate(encoder, benchmark, settings, Location.of(folder / "features"))
    branches = matrix(found)
    row: dict[str, Any] = {
        "accuracy": _mean(found, "mean", "macro_accuracy"),
        "t2i": _mean(found, "mean", "text_to_image_recall@1"),
        "i2t": _mean(found, "mean", "image_to_text_recall@1"),
        "own_wins": len(branches.own_wins()) if branches else None,
        "own_ties": len(branches.own_ties()) if branches else None,
        "branch_cosine": float(trained.last["branch_cosine"]),
    }
    if encoder.second_score:
        row["rerank_t2i"] = _mean(found, "rerank", "text_to_image_recall@1")
        row["rerank_i2t"] = _mean(found, "rerank", "image_to_text_recall@1")
    return row


def _mean(found: Evaluation, readout: str, metric: str) -> float:
    return statistics.mean(f.value for f in found.measurements if (f.readout, f.metric) == (readout, metric))


def report(rows: Sequence[dict[str, Any]]) -> None:
    """A line per run: the mean over seeds, and the spread where there are several."""
    columns = ("accuracy", "t2i", "i2t", "rerank_t2i", "rerank_i2t")
    print("| run | seeds | accuracy | text to image R@1 | image to text R@1 | re-ranked T2I | re-ranked I2T |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in RUNS:
        mine = [row for row in rows if row["run"] == name]
        if mine:
            cells = [_cell([row[column] for row in mine if column in row]) for column in columns]
            print(f"| {name} | {len(mine)} | {' | '.join(cells)} |")


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ({100 * min(values):.1f} to {100 * max(values):.1f})" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
