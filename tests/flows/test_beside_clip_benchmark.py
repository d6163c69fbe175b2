"""The `clip_benchmark` command and ours measure one export on one WebDataset, and find the same (docs/evaluation.md).

CLIP_benchmark is in no lock of ours: where it is not importable, this is skipped.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import training
from flows.cli import main
from pipeline import schemas
from pipeline.storage import Location
from tests.evaluation.conftest import TINY
from training.checkpoint import model_files, new_model
from training.config import RunConfig
from training.export import export

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 50), "blue": (30, 60, 210), "grey": (128, 128, 128),
           "yellow": (230, 220, 40), "white": (250, 250, 250)}  # fmt: skip
PICTURES, TARS = 96, 3
FIGURES = {
    **{f"image_retrieval_recall@{k}": f"text_to_image_recall@{k}" for k in (1, 5, 10)},
    **{f"text_retrieval_recall@{k}": f"image_to_text_recall@{k}" for k in (1, 5, 10)},
    "acc1": "accuracy",
    "mean_per_class_recall": "macro_accuracy",
}


def scenes() -> Iterator[tuple[str, Image.Image, list[str]]]:
    """A square on noise for each picture, wider than high; its colour, and two captions."""
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        colour = list(COLOURS)[int(rng.integers(len(COLOURS)) * rng.random())]  # some are rare
        image = Image.fromarray(rng.integers(0, 160, (28, 40, 3), dtype=np.uint8))
        place = int(rng.integers(6, 20))
        image.paste(COLOURS[colour], (place, 4, place + 14, 18))
        yield colour, image, [f"a {colour} square at {place}, {number}", f"picture {number} with something {colour}"]


def webdataset(folder: Path, *, retrieval: bool) -> Path:
    """As CLIP_benchmark lays it out."""
    (folder / "test").mkdir(parents=True)
    for shard in range(TARS):
        with tarfile.open(folder / "test" / f"{shard}.tar", "w") as tar:
            for number, (colour, image, captions) in enumerate(scenes()):
                if number * TARS // PICTURES != shard:
                    continue
                buffer = io.BytesIO()
                image.save(buffer, "JPEG", quality=90)
                label = ("txt", "\n".join(captions)) if retrieval else ("cls", str(list(COLOURS).index(colour)))
                for suffix, data in (("jpg", buffer.getvalue()), (label[0], label[1].encode())):
                    member = tarfile.TarInfo(f"s{number:07}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    (folder / "test" / "nshards.txt").write_text(str(TARS))
    if retrieval:
        (folder / "dataset_type.txt").write_text("retrieval")
    else:
        (folder / "classnames.txt").write_text("\n".join(COLOURS))
        (folder / "zeroshot_classification_templates.txt").write_text("a {c} square\npicture with something {c}")
    return folder


def model_of_one_branch(folder: Path) -> Path:
    """Trained for a moment, so that it tells some pictures apart."""
    torch.manual_seed(0)
    recipe = RunConfig.model_validate({"model": TINY, "slots": ["alt_text"], "losses": {"served": 1.0}})
    folder.mkdir(parents=True)
    model = new_model(recipe)
    for name, data in model_files(model, recipe, 1).items():
        (folder / name).write_bytes(data)
    trained, preprocess, tokenizer = training.load(folder)
    shown = list(scenes())
    image_BCSS = torch.stack([preprocess(image) for _, image, _ in shown])
    text_BL = tokenizer([captions[0] for _, _, captions in shown])
    adam = torch.optim.Adam(trained.parameters(), 2e-3)
    for _ in range(12):
        image_BD = trained.encode_branches(image_BCSS)[:, 0]
        logit_BB = 20 * image_BD @ trained.encode_text(text_BL, normalize=True).T
        loss = torch.nn.functional.cross_entropy(logit_BB, torch.arange(len(shown)))
        adam.zero_grad()
        loss.backward()
        adam.step()
    for name, data in model_files(trained, recipe, 1).items():
        (folder / name).write_bytes(data)
    return folder


def theirs(model: Path, data: Path, task: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the command writes. Its mixed precision is off: it would encode in 8 bits of mantissa."""
    command = pytest.importorskip("clip_benchmark.cli", reason="CLIP_benchmark is not installed", exc_type=ImportError)
    asked = ["eval", "--model", f"local-dir:{model}", "--pretrained", "", "--dataset", f"wds/{data.name}",
             "--dataset_root", str(data), "--task", task, "--no_amp", "--num_workers", "0", "--batch_size", "32",
             "--recall_k", "1", "5", "10", "--output", str(out), "--quiet"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *asked])
    command.main()
    found: dict[str, float] = json.loads(out.read_text())["metrics"]
    return found


def test_both_commands_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("clip_benchmark.cli", reason="CLIP_benchmark is not installed", exc_type=ImportError)
    export(model_of_one_branch(tmp_path / "run"), tmp_path / "out", ["open_clip"])
    sets = {"zeroshot_retrieval": webdataset(tmp_path / "captions", retrieval=True),
            "zeroshot_classification": webdataset(tmp_path / "classes", retrieval=False)}  # fmt: skip
    monkeypatch.chdir(tmp_path)
    benchmarks = [{"suite": "webdataset", "name": folder.name, "root": str(folder)} for folder in sets.values()]
    asked = ["--set", f"evaluate.benchmarks={json.dumps(benchmarks)}", "--set", "evaluate.device=cpu"]
    assert main(["evaluate", "--model", "ours=out", *asked, "--set", "evaluate.bootstrap_samples=100"]) == 0
    (results,) = (tmp_path / "workspace" / "evaluate").glob("*/results.parquet")
    rows = schemas.read(Location.of(results), schemas.RESULTS).to_pylist()
    ours = {row["metric"]: row["value"] for row in rows if row["readout"] == "mean"}
    for task, folder in sets.items():
        measured = theirs(tmp_path / "out", folder, task, tmp_path / f"{task}.json", monkeypatch)
        measured = {name: value for name, value in measured.items() if name in FIGURES}
        assert len(measured) == (6 if task == "zeroshot_retrieval" else 2)
        assert {name: ours[FIGURES[name]] for name in measured} == pytest.approx(measured, abs=5e-5)
    assert 0.2 < ours["accuracy"] < 0.98, "it knows something, and not all"
    assert 0.1 < ours["text_to_image_recall@10"] < 0.98
