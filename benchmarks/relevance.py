"""Which way to show what moves a branch's score hits what the text is about? On scenes whose truth is known.

    python -m benchmarks.relevance MODEL SCENES [--images 120]

MODEL is the folder of a model with a class token for each perspective (`holism run configs/demo.yaml --set
train.branch_kind=cls` leaves demo/workspace/train/holism-*/model), SCENES a folder of held-out scenes
(demo/scenes/heldout). A branch is asked with
the first text of its own perspective that is true for the scene. Of each way two figures against a truth mask:

    pointing  the share of scenes in which the centre of the most relevant cell lies in the mask
    share     how much of the positive relevance lies in the mask

Chance of both is the mask's area. The main object is what `main_object`, `phrase` and `alt_text` name; of `background`
the background is right, and the main object wrong.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional as F

import training
from evaluation import benchmarks, occlusion
from pipeline import pictures
from pipeline.demo_world.scene import Scene, sample
from pipeline.errors import ConfigError

ASKED = (  # a branch, and the mask that its relevance is compared with
    ("main_object", "main"),
    ("phrase", "main"),
    ("alt_text", "main"),
    ("background", "main"),
    ("background", "background"),
)
BATCH = 64
Way = Callable[[Any, Tensor, Tensor], np.ndarray]  # model, picture (3, S, S), texts (H, D) -> relevance (H, R, C)


def attention(model: Any, image_CSS: Tensor, text_HD: Tensor) -> np.ndarray:  # noqa: ARG001
    """Where each branch's class token (kind `cls`) attends in the last block, mean over heads, whatever the text."""
    visual = model.visual
    block = visual.blocks[-1]
    with torch.no_grad():
        y_1LW = block.ln_1(visual.up_to_last(image_CSS[None]))
        rows = y_1LW[:, : visual.branches]
        weight_1HL = block.attn(rows, y_1LW, y_1LW, need_weights=True, attn_mask=visual.class_mask_HL)[1]
    return _on_patches(visual, weight_1HL[0])


def gradient_first(model: Any, image_CSS: Tensor, text_HD: Tensor) -> np.ndarray:
    """Gradient × input at the patch tokens that enter the first block."""
    return _gradient(model, image_CSS, text_HD, 0)


def gradient_last(model: Any, image_CSS: Tensor, text_HD: Tensor) -> np.ndarray:
    """Gradient × input at the patch tokens that enter the last block."""
    return _gradient(model, image_CSS, text_HD, -1)


def covering(model: Any, image_CSS: Tensor, text_HD: Tensor) -> np.ndarray:
    """What is built in."""
    return occlusion.relevance(model.encode_branches, image_CSS, text_HD, BATCH)


WAYS: dict[str, Way] = {
    "attention of the last block": attention,
    "gradient × input, first block": gradient_first,
    "gradient × input, last block": gradient_last,
    "occlusion": covering,
}


def _gradient(model: Any, image_CSS: Tensor, text_HD: Tensor, block: int) -> np.ndarray:
    visual, entering = model.visual, list[Tensor]()
    hook = visual.blocks[block].ln_1.register_forward_pre_hook(lambda _, given: entering.append(given[0]))
    score_H = (F.normalize(visual(image_CSS[None].requires_grad_())[0], dim=-1) * text_HD).sum(-1)
    hook.remove()
    (x_1LW,) = entering
    of_branch = [torch.autograd.grad(score, x_1LW, retain_graph=True)[0] for score in score_H]
    return _on_patches(visual, torch.stack([(gradient * x_1LW)[0].sum(-1) for gradient in of_branch]))


def _on_patches(visual: Any, of_token_HL: Tensor) -> np.ndarray:
    rows, columns = visual.grid_size
    return of_token_HL[:, -rows * columns :].detach().reshape(-1, rows, columns).numpy()


def judged(relevance_RC: np.ndarray, mask_SS: np.ndarray) -> tuple[float, float]:
    """Whether the most relevant cell's centre is in the mask, and the share of positive relevance in it."""
    rows, columns = relevance_RC.shape
    cell = mask_SS.shape[0] // rows
    inside_RC = mask_SS.reshape(rows, cell, columns, cell).mean(axis=(1, 3))
    row, column = np.unravel_index(relevance_RC.argmax(), relevance_RC.shape)
    positive_RC = np.maximum(relevance_RC, 0)
    share = (positive_RC * inside_RC).sum() / max(positive_RC.sum(), 1e-12)
    return float(mask_SS[cell * row + cell // 2, cell * column + cell // 2]), float(share)


def masks(scene: Scene) -> dict[str, np.ndarray]:
    """What can be seen of the main object, and what no object and no sign covers."""
    visible, sign = scene.visible_masks(), scene.sign_box
    free = ~np.logical_or.reduce(visible)
    if sign is not None:
        free[sign[1] : sign[3], sign[0] : sign[2]] = False
    return {"main": visible[scene.main], "background": free}


def measure(model_folder: str, scenes: Path, images: int) -> dict[str, Any]:
    """Of each way and of chance, pointing and share for everything asked; and seconds a picture."""
    model, preprocess, tokenizer = training.load(model_folder)
    model.eval()
    if model.options.kind != "cls":
        raise ConfigError(f"{model_folder} has branches of kind {model.options.kind}; the ways compared need cls")
    benchmark = benchmarks.read(str(scenes))
    truth = {row["file"]: json.loads(row["truth"]) for row in pq.read_table(scenes / "truth.parquet").to_pylist()}
    chosen = np.random.default_rng(0).choice(
        len(benchmark.files), size=min(images, len(benchmark.files)), replace=False
    )
    texts = {queries.perspective: _first_texts(queries) for queries in benchmark.queries}
    found: dict[str, list[Any]] = {way: [] for way in (*WAYS, "chance")}
    seconds = dict.fromkeys(WAYS, 0.0)
    for index in chosen.tolist():
        image_CSS = preprocess(pictures.decode(benchmark.image(index).read())[0])
        asked = [texts[slot].get(index, texts["detail"][index]) for slot in model.slots]
        with torch.no_grad():
            text_HD = F.normalize(model.encode_text(tokenizer(asked)), dim=-1)
        right = masks(sample(truth[benchmark.files[index]]["seed"]))
        for name, way in WAYS.items():
            began = time.process_time()
            relevance_HRC = way(model, image_CSS.clone(), text_HD)
            seconds[name] += time.process_time() - began
            found[name].append([judged(relevance_HRC[model.slots.index(b)], right[mask]) for b, mask in ASKED])
        found["chance"].append([[right[mask].mean()] * 2 for _, mask in ASKED])
    means = {name: np.mean(judgements, axis=0) for name, judgements in found.items()}
    return {"means": means, "seconds": {name: total / len(chosen) for name, total in seconds.items()}}


def _first_texts(queries: Any) -> dict[int, str]:
    """The first text of a perspective that is true for each image."""
    pairs = list(zip(queries.pair_image_P.tolist(), queries.pair_text_P.tolist(), strict=True))
    return {image: queries.texts[text] for image, text in reversed(pairs)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--images", type=int, default=120)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(given.model, given.scenes, given.images)
    print("| way | " + " | ".join(f"{branch}, {mask}" for branch, mask in ASKED) + " | CPU seconds a picture |")
    print("| --- |" + " ---: |" * (len(ASKED) + 1))
    for name, mean_A2 in found["means"].items():
        cells = [f"{pointing:.2f} / {share:.2f}" for pointing, share in mean_A2]
        print(f"| {name} | " + " | ".join(cells) + f" | {found['seconds'].get(name, 0):.2f} |")


if __name__ == "__main__":
    main()
