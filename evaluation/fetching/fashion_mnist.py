"""Fashion-MNIST: grey pictures of clothes, 28 pixels wide, in ten classes: zero-shot, and probes on 60,000 more."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.benchmarks import Benchmark
from evaluation.classes import Classes
from evaluation.contents import Spec
from evaluation.fetching.fetch import benchmark
from evaluation.fetching.packages import Deb
from pipeline.errors import InputError

ABOUT = "Small grey pictures of clothes, 60,000 to train and 10,000 to test: zero-shot, linear and few-shot probes"
PACKAGES = (Deb("dataset-fashion-mnist", "MIT"),)
CLASSES = (
    "T-shirt or top",
    "pair of trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
TEMPLATES = ("a photo of a {}.", "a black and white photo of a {}.", "a small picture of a {}.")
PICTURES, LABELS = 0x803, 0x801  # what the files of either kind begin with


def build(folders: Sequence[Path], work: Path) -> Benchmark:
    """Pictures as PNG, by their number in the files."""
    spec = Spec(name="fashion_mnist", classification={"article": Classes(classes=CLASSES, templates=TEMPLATES)})
    train = _split(spec.model_copy(update={"split": "train"}), folders[0], work, "train")
    return _split(spec, folders[0], work, "t10k", train)


def _split(spec: Spec, folder: Path, work: Path, prefix: str, train: Benchmark | None = None) -> Benchmark:
    picture_NRC = _read(folder, f"{prefix}-images-idx3-ubyte.gz", PICTURES)
    label_N = _read(folder, f"{prefix}-labels-idx1-ubyte.gz", LABELS).astype(np.int64)
    made = work / f"pictures-{prefix}"
    made.mkdir()
    pictures = []
    for number, picture_RC in enumerate(picture_NRC):
        path = made / f"{number:05}.png"
        Image.fromarray(picture_RC).save(path)
        pictures.append((path.name, path))
    return benchmark(spec, pictures, {"article": label_N}, train=train)


def _read(folder: Path, name: str, magic: int) -> np.ndarray:
    """An array in the form of MNIST: a number that says what it is, the size of each dimension, bytes."""
    found = sorted(folder.rglob(name))
    if not found:
        raise InputError(f"the package has no {name}")
    data = gzip.decompress(found[0].read_bytes())
    if int.from_bytes(data[:4], "big") != magic:
        raise InputError(f"{name} begins with {data[:4].hex()}, expected {magic:08x}")
    sizes = np.frombuffer(data, ">u4", count=magic & 0xFF, offset=4).astype(np.int64)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)
