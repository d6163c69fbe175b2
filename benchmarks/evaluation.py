"""What evaluation costs, and whether its figures are CLIP_benchmark's, on features that are generated.

    PYTHONPATH=FOLDER python -m benchmarks.evaluation peer     beside CLIP_benchmark's own functions
    python -m benchmarks.evaluation large                      100,000 images, 5 captions each, the served vector

FOLDER is where clip-benchmark is installed (`uv pip install --no-deps --target FOLDER clip-benchmark`): it is in no
lock of ours. Each measurement is a process of its own on one thread: processor seconds, and the growth of its peak
memory over what it held when the features were there. Its `evaluate` is called as it is, with a model that looks its
vectors up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

KS = (1, 5, 10)
BATCH = 64
CLASSES = 1000


def generated(images: int, captions: int, width: int, noise: float) -> tuple[Tensor, Tensor]:
    """Image vectors, and a caption's vector near its image's: how near, `noise` says."""
    generator = torch.Generator().manual_seed(0)
    image_ND = F.normalize(torch.randn(images, width, generator=generator), dim=-1)
    text_TD = torch.randn(images * captions, width, generator=generator)
    for part, image in zip(text_TD.split(captions), image_ND, strict=True):
        part.mul_(noise / width**0.5).add_(image)
    return image_ND, F.normalize(text_TD, dim=-1)


def ours_retrieval(image_ND: Tensor, text_TD: Tensor) -> dict[str, float]:
    """Both directions: recall as the other has it, and what comes with it."""
    from evaluation.both_ways import both_ways
    from evaluation.retrieval import Relevance

    captions = len(text_TD) // len(image_ND)
    image_T = np.repeat(np.arange(len(image_ND)), captions)
    asked = Relevance(np.arange(len(text_TD)), image_T, len(text_TD), len(image_ND))
    found: dict[str, float] = {}
    for name, ranks in zip(("image", "text"), both_ways(image_ND[:, None], text_TD, asked), strict=True):
        best = ranks.best()
        found |= {f"{name}_retrieval_recall@{k}": float(hit.mean()) for k, hit in best.hits(KS).items()}
        found[f"{name} map"] = float(ranks.average_precision().mean())
        found[f"{name} median rank"] = float(np.median(best.rank_Q()))
    return found


def their_retrieval(image_ND: Tensor, text_TD: Tensor) -> dict[str, float]:
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    captions = len(text_TD) // len(image_ND)

    def batches() -> Iterator[tuple[Tensor, list[list[int]]]]:
        for index in torch.arange(len(image_ND)).split(BATCH):
            yield index, [list(range(i * captions, (i + 1) * captions)) for i in index.tolist()]

    found = evaluate(_LooksUp(image_ND, text_TD), batches(), torch.tensor, "cpu", amp=False, recall_k_list=list(KS))
    return dict(found)


def ours_classification(image_ND: Tensor, text_TD: Tensor) -> dict[str, float]:
    """Classes from their prompts, predictions, both figures as the task has them."""
    from evaluation.classification import class_vectors, predict
    from evaluation.intervals import MeanEstimate

    prompt_CTD, actual_N = _classes(image_ND, text_TD)
    right_N = predict(image_ND[:, None], class_vectors(prompt_CTD)).right(actual_N)
    return {"acc1": MeanEstimate(right_N).value, "mean_per_class_recall": MeanEstimate(right_N, actual_N).value}


def their_classification(image_ND: Tensor, text_TD: Tensor) -> dict[str, float]:
    from clip_benchmark.metrics.zeroshot_classification import evaluate

    prompt_CTD, actual_N = _classes(image_ND, text_TD)

    class Loader:
        dataset = SimpleNamespace(classes=range(len(prompt_CTD)))

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for index in torch.arange(len(image_ND)).split(BATCH):
                yield index, torch.from_numpy(actual_N)[index]

    names, templates = [str(c) for c in Loader.dataset.classes], ["{c}"] * prompt_CTD.shape[1]
    model = _LooksUp(image_ND, prompt_CTD)
    found = evaluate(model, Loader(), lambda texts: torch.tensor(int(texts[0])), names, templates, "cpu", amp=False)
    return {name: found[name] for name in ("acc1", "mean_per_class_recall")}


def _classes(image_ND: Tensor, text_TD: Tensor) -> tuple[Tensor, np.ndarray]:
    """A thousand classes of as many images each, (C, T, D); prompts of one are the captions of its first image."""
    members = max(1, len(image_ND) // CLASSES)
    text_NTD = text_TD.unflatten(0, (len(image_ND), -1))
    return text_NTD[::members][:CLASSES], np.minimum(np.arange(len(image_ND)) // members, CLASSES - 1)


class _LooksUp:
    """A model whose images and texts are rows of what is there."""

    def __init__(self, image_ND: Tensor, text_TD: Tensor) -> None:
        self.image_ND, self.text_TD = image_ND, text_TD

    def encode_image(self, index: Tensor) -> Tensor:
        return self.image_ND[index]

    def encode_text(self, index: Tensor) -> Tensor:
        return self.text_TD[index]


def intervals_too(image_ND: Tensor, text_TD: Tensor) -> dict[str, float]:
    """What a large set costs with bootstrap intervals of a thousand resamples."""
    from evaluation import intervals

    found = ours_retrieval(image_ND, text_TD)
    outcome_T = (np.arange(len(text_TD)) % 3 == 0).astype(np.float64)
    low, high = intervals.interval(intervals.replicates(outcome_T, samples=1000, seed=0))
    return found | {"interval of a third, width": high - low}


MEASURED: dict[str, Callable[[Tensor, Tensor], dict[str, float]]] = {
    "ours": ours_retrieval,
    "theirs": their_retrieval,
    "ours, classification": ours_classification,
    "theirs, classification": their_classification,
    "large": intervals_too,
}


def measure(what: str, images: int, captions: int, width: int, noise: float) -> dict[str, Any]:
    """In a process of its own."""
    asked = [what, str(images), str(captions), str(width), str(noise)]
    done = subprocess.run([sys.executable, "-m", __spec__.name, "one", *asked], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(what: str, images: int, captions: int, width: int, noise: float) -> dict[str, Any]:
    """Figures, processor seconds, and MiB over what was held when the features were there."""
    torch.set_num_threads(1)
    vectors = generated(images, captions, width, noise)
    MEASURED[what](
        *(vector[: 2 * BATCH * captions if i else 2 * BATCH] for i, vector in enumerate(vectors))
    )  # imports
    _forget_peak()
    before, began = _memory("VmRSS"), time.process_time()
    found = MEASURED[what](*vectors)
    seconds = time.process_time() - began
    return {"figures": found, "cpu": seconds, "extra": _memory("VmHWM") - before, "peak": _memory("VmHWM")}


def _forget_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _memory(field: str) -> float:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{field}:"))


def peer(images: int, noise: float) -> None:
    print("| | processor seconds | extra memory, MiB |\n| --- | ---: | ---: |")
    for task in ("", ", classification"):
        ours, theirs = (measure(f"{who}{task}", images, 5, 512, noise) for who in ("ours", "theirs"))
        for name, row in (("CLIP_benchmark", theirs), ("ours", ours)):
            print(f"| {name}{task} | {row['cpu']:.2f} | {row['extra']:.0f} |")
        print(
            f"| ours of theirs{task} | 1/{theirs['cpu'] / ours['cpu']:.1f} | 1/{theirs['extra'] / ours['extra']:.1f} |"
        )
        apart = {name: abs(ours["figures"][name] - value) for name, value in theirs["figures"].items()}
        print(f"largest difference of {len(apart)} figures: {max(apart.values()):.1e}", file=sys.stderr)
        print(json.dumps({"ours": ours["figures"], "theirs": theirs["figures"]}), file=sys.stderr)


def large(images: int, noise: float) -> None:
    found = measure("large", images, 5, 512, noise)
    print(
        f"{images:,} images, {5 * images:,} texts: {found['cpu']:.0f} processor seconds, peak {found['peak']:.0f} MiB"
    )
    print(json.dumps(found["figures"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, images in (("peer", 5_000), ("large", 100_000)):
        command = commands.add_parser(name)
        command.add_argument("--images", type=int, default=images)
        command.add_argument("--noise", type=float, default=5.0, help="of captions; 0: each is its image's vector")
    command = commands.add_parser("one")
    for name, kind in (("what", str), ("images", int), ("captions", int), ("width", int), ("noise", float)):
        command.add_argument(name, type=kind)
    options = vars(parser.parse_args())
    run: Callable[..., Any] = {"peer": peer, "large": large, "one": one}[options.pop("command")]
    if (found := run(**options)) is not None:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
