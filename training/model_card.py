"""The model card: what a folder of weights is, where it comes from, what it reaches, and how to use it.

It names no place on the machine that wrote it. Its code is run by a test, on pictures that lie on their side or are
transparent, and has to give what `evaluate` measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.summary import counted
from training.model import HolisticCLIP

_SEEN = """
```python
from PIL import Image, ImageOps

def seen(file):  # a picture as this model was trained on it: upright, on white, in RGB
    picture = ImageOps.exif_transpose(Image.open(file))
    if picture.mode[0] in "IF":
        raise ValueError("more than 8 bits a pixel: scale it to 8 first, as pipeline/levels.py of Holism does")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.new("RGB", layer.size, "white")
        picture.paste(layer, mask=layer.getchannel("A"))
    return picture.convert("RGB")
```
"""
_LOADING = {
    "config.json": """With Holism, from a checkout; `preprocess` takes pictures as they were opened and does the rest:

```python
import training
from PIL import Image

model, preprocess, tokenizer = training.load("FOLDER")
image = model.encode_image(preprocess(Image.open("photo.jpg"))[None], normalize=True)
text = model.encode_text(tokenizer(["a red kite"]), normalize=True)
```

`encode_branches` gives all branches, (1, H, D); `encode_image` their mean, which is what an index serves.""",
    "open_clip_config.json": """With open_clip, whose `preprocess` neither turns pictures upright by their EXIF
orientation nor puts transparent ones on white: open them with this function.
{seen}
```python
import open_clip

model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")
tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")
image = model.eval().encode_image(preprocess(seen("photo.jpg"))[None], normalize=True)
text = model.encode_text(tokenizer(["a red kite"]), normalize=True)
```""",
    "image.onnx": """With ONNX Runtime. `image.onnx` takes `image` (batch, 3, {size}, {size}), float32, and gives
`served` (batch, {dim}) and `branches` (batch, {branches}, {dim}); `text.onnx` takes `text` (batch, {context}), int64
token ids of CLIP's tokenizer padded with 0, and gives `served` (batch, {dim}). All vectors have length one, so scores
are products.
{seen}
```python
import numpy as np
import onnxruntime
import open_clip

def pixels(picture, size={size}, mean={mean}, std={std}):
    # the shorter side to `size`, the centre, normalised: (1, 3, size, size)
    short = min(picture.size)
    scaled = picture.resize([int(size * side / short) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in scaled.size)
    values = np.asarray(scaled.crop((left, top, left + size, top + size)), np.float32) / 255
    return ((values - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)[None]

image_tower, text_tower = (onnxruntime.InferenceSession(f"FOLDER/{{name}}.onnx") for name in ("image", "text"))
tokenizer = open_clip.SimpleTokenizer(context_length={context})
image, branches = image_tower.run(None, {{"image": pixels(seen("photo.jpg"))}})
(text,) = text_tower.run(None, {{"text": tokenizer(["a red kite"]).numpy()}})
```""",
}
# Of several branches: what an index may keep.
_READ_OUT = """An index keeps one vector for an image, the served one, or all {branches}: then the score of an image
for a text is that of its best branch, which takes {branches} times the bytes and can find more (`evaluate` measures
both, as the readouts `mean` and `max`).

```python
branches = model.encode_branches(preprocess(Image.open("photo.jpg"))[None])
score = (branches @ text.T).amax(dim=1)  # one row an image, one column a text
```

Where it is known what texts ask for, the branch of that name answers them alone, for the price of one vector a search:

```python
own = branches[:, model.slots.index("{branch}")] @ text.T
```"""
_KINDS = {
    "cls": "class tokens, isolation {isolation}",
    "mlp": "a second MLP layer each in the last {where}",
    "query": "queries in the last {where}",
}
_HUB = """---
license: unknown
library_name: {library}
pipeline_tag: zero-shot-image-classification
tags: [clip, image-text-retrieval, synthetic-captions, {shape}]
---"""

_INTRODUCTION = (
    "Trained with Holism: many captions per image, a branch of the image encoder for each kind of caption. The "
    "licence is for you to state: those of the images and of the captioning models may bear on it."
)


@dataclass(frozen=True)
class Facts:
    """What a workspace knows of a run beside its files: where it comes from, and what each benchmark found."""

    data: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # as `evaluate` sums a run up


def model_card(model: HolisticCLIP, description: Mapping[str, Any], files: Sequence[str], facts: Facts) -> str:
    """Markdown with the front matter of model hubs.

    `description` is the model folder's config.json, `files` what lies beside the card.
    """
    recipe = description["recipe"]
    several = len(model.slots) > 1
    library = "open_clip" if "open_clip_config.json" in files else "holism"
    parts = [
        _HUB.format(library=library, shape="multi-branch" if several else "single-branch"),
        "# A CLIP with several image branches" if several else "# A CLIP",
        _INTRODUCTION,
        "## Architecture",
        _table(_architecture(model)),
        "## Branches and slots",
        _slots(model, description["slots"]),
        "## Data and training",
        _table({**facts.data, **_training(recipe, description["step"])}),
        "The whole recipe is in `config.json`." if "config.json" in files else _recipe(recipe),
        "## Figures",
        _figures(facts.figures),
        "## How to load it",
        *(_loading(model, description["preprocess"], file) for file in files if file in _LOADING),
        "## Preprocessing",
        _preprocess(description["preprocess"]),
    ]
    return "\n\n".join(parts) + "\n"


def _training(recipe: Mapping[str, Any], steps: int) -> dict[str, str]:
    return {
        "steps": str(steps),
        "images per step": str(recipe["global_batch"]),
        "losses": ", ".join(f"{name} × {weight:g}" for name, weight in recipe["losses"].items()),
        "started from": str(recipe["warm_start"] or "nothing"),
        "learning rate, weight decay": f"{recipe['lr']:g}, {recipe['weight_decay']:g}",
    }


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The served vector's figures, a table over all benchmarks."""
    rows = ["| benchmark | of the served vector | % | chance |", "| --- | --- | ---: | ---: |"]
    for benchmark, of_benchmark in figures.items():
        for name, figure in of_benchmark.items():
            if isinstance(figure, Mapping):
                value, chance = 100 * figure["value"], 100 * figure["chance"]
                rows.append(f"| {benchmark} | {name.replace('_', ' ')} | {value:.1f} | {chance:.1f} |")
    return "\n".join(rows) if len(rows) > 2 else "Not evaluated when this card was written."


def _architecture(model: HolisticCLIP) -> dict[str, str]:
    vit, text = model.visual, model.transformer
    patch, size = vit.conv1.kernel_size[0], " × ".join(map(str, vit.image_size))
    depth, text_depth = counted(len(vit.blocks), "block"), counted(len(text.resblocks), "block")
    several = len(model.slots) > 1
    blocks = model.options.blocks
    kind = _KINDS[model.options.kind].format(
        isolation=model.options.isolation, where="block" if blocks == 1 else f"{blocks} blocks"
    )
    return {
        "image tower": f"ViT, width {vit.width}, {depth}, patches of {patch} px, images of {size}",
        "branches": f"{len(model.slots)}, {kind}" if several else "one: plain CLIP",
        "projection": "one a branch" if several and model.options.projection == "branch" else "shared",
        "text tower": f"width {text.width}, {text_depth}, {model.context_length} tokens",
        "joint space": f"{model.architecture['embed_dim']} dimensions",
        "activation": "QuickGELU" if model.architecture.get("quick_gelu") else "GELU",
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M",
    }


def _slots(model: HolisticCLIP, slots: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| branch | captions it was matched with |", "| --- | --- |"]
    wanted = {slot["name"]: f"{slot['perspective']}, {slot['granularity'] or 'any granularity'}" for slot in slots}
    everything = ", ".join(wanted)
    return "\n".join(rows + [f"| {name} | {wanted.get(name, everything)} |" for name in model.slots])


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _recipe(recipe: Mapping[str, Any]) -> str:
    return f"The whole recipe:\n\n```json\n{json.dumps(recipe, indent=1)}\n```"


def _loading(model: HolisticCLIP, preprocess: Mapping[str, Any], file: str) -> str:
    if file == "config.json":
        read_out = "\n\n" + _READ_OUT.format(branches=len(model.slots), branch=model.slots[0])
        return _LOADING[file] + (read_out if len(model.slots) > 1 else "")
    if file == "open_clip_config.json":
        return _LOADING[file].format(seen=_SEEN)
    return _LOADING[file].format(
        seen=_SEEN,
        size=preprocess["size"],
        mean=preprocess["mean"],
        std=preprocess["std"],
        dim=model.architecture["embed_dim"],
        branches=len(model.slots),
        context=model.context_length,
    )


def _preprocess(preprocess: Mapping[str, Any]) -> str:
    return (
        "Upright by the EXIF orientation, on white where it is transparent, RGB of 8 bits (of more bits: what "
        "pipeline/levels.py of Holism makes of them); then the shorter side to "
        f"{preprocess['size']} px ({preprocess['interpolation']}), centre crop, values in [0, 1], minus "
        f"{preprocess['mean']}, over {preprocess['std']}."
    )
