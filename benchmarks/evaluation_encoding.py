"""What encoding costs beside CLIP_benchmark: one model, one WebDataset, the same workers and batch.

    PYTHONPATH=FOLDER python -m benchmarks.evaluation_encoding [--model ViT-B-32] [--images 384] [--workers 1]

FOLDER has clip-benchmark and pycocoevalcap (docs/evaluation.md). Theirs are its own loader and functions of zero-shot
classification, which encode pictures and prompts; the few products in them cost nothing. Ours reads the same tars.
Both run in turns, and the least of each counts: processor seconds of this process and its workers, and seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from evaluation import benchmarks
from evaluation.config import EvaluateConfig, SuiteAt
from evaluation.encoder import Encoder
from evaluation.features import Needs, features
from evaluation.models import open_clip_model
from evaluation.models.source import Source

SMALL = {  # its pictures cost their decoding, and little else
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 128, "patch_size": 32, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
BATCH = 64
CLASSES = 200
TEMPLATES = [
    f"a {word} picture of the {{c}} in a room" for word in ("good", "bad", "old", "new", "big", "small", "odd")
]


def webdataset(folder: Path, images: int) -> None:
    """Photos of 640 × 480, as far as a decoder sees it."""
    (folder / "test").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for number in range(images):
            rough = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            buffer = io.BytesIO()
            rough.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
            for suffix, data in (("jpg", buffer.getvalue()), ("cls", str(number % CLASSES).encode())):
                member = tarfile.TarInfo(f"s{number:07}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (folder / "test" / "nshards.txt").write_text("1")
    (folder / "classnames.txt").write_text("\n".join(_classes()))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))


def theirs(folder: Path, model: Any, preprocess: Any, tokenizer: Any, workers: int) -> dict[str, Callable[[], Any]]:
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics import zeroshot_classification

    def images() -> None:
        data = build_dataset("wds/x", root=str(folder), transform=preprocess, task="zeroshot_classification")
        loader = torch.utils.data.DataLoader(data.batched(BATCH), batch_size=None, num_workers=workers)
        weights_DC = torch.zeros(model.text_projection.shape[1], 1)
        zeroshot_classification.run_classification(model, weights_DC, loader, "cpu", amp=False)

    def texts() -> None:
        zeroshot_classification.zero_shot_classifier(model, tokenizer, _classes(), TEMPLATES, "cpu", amp=False)

    return {"pictures": images, "texts": texts}


def ours(root: Path, encoder: Encoder, workers: int) -> dict[str, Callable[[], Any]]:
    config = EvaluateConfig(workers=workers, image_batch=BATCH, device="cpu")

    def encode(name: str, texts: Sequence[str] = ()) -> None:
        benchmark = benchmarks.read(SuiteAt(suite="webdataset", root=str(root / name), name=name))
        features(encoder, benchmark, config, None, Needs(texts))

    prompts = [template.replace("{c}", name) for name in _classes() for template in TEMPLATES]
    return {"pictures": lambda: encode("set"), "texts": lambda: encode("one", prompts)}


def cost(work: Callable[[], Any]) -> tuple[float, float]:
    """Processor seconds and seconds."""
    processor, began = _processor(), time.perf_counter()
    with open(os.devnull, "w", encoding="utf8") as quiet, contextlib.redirect_stderr(quiet):
        work()
    return _processor() - processor, time.perf_counter() - began


def _processor() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _classes() -> Sequence[str]:
    return [f"thing of kind {number}" for number in range(CLASSES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", help="of open_clip's; small: one that is made for this")
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "small.json").write_text(json.dumps(SMALL))
        open_clip.add_model_config(root / "small.json")
        torch.manual_seed(0)
        model, _, preprocess = open_clip.create_model_and_transforms(asked.model)
        torch.save(model.eval().state_dict(), root / "weights.pt")
        encoder = open_clip_model.load("ours", Source.of(f"open_clip:{asked.model}:{root}/weights.pt"))
        webdataset(root / "set", asked.images)
        webdataset(root / "one", 1)
        tokenizer = open_clip.get_tokenizer(asked.model)
        both = {
            "CLIP_benchmark": theirs(root / "set", model, preprocess, tokenizer, asked.workers),
            "ours": ours(root, encoder, asked.workers),
        }
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(asked.rounds):
            for what in ("pictures", "texts"):
                for who, work in both.items():
                    found.setdefault((what, who), []).append(cost(work[what]))
    print("| | processor seconds | seconds |\n| --- | ---: | ---: |")
    for (what, who), costs in found.items():
        print(f"| {what}, {who} | {min(c for c, _ in costs):.2f} | {min(w for _, w in costs):.2f} |")


if __name__ == "__main__":
    main()
