"""The model card: what a folder of weights is, where it comes from, and how to use it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.model import HolisticCLIP

_LOADING = {
    "config.json": """With Holism, from a checkout:

    import training
    model, preprocess, tokenizer = training.load("FOLDER")
    image, text = model.encode_image(preprocess(picture)[None]), model.encode_text(tokenizer(["a red kite"]))

`encode_branches` gives all branches, (1, H, D); `encode_image` their mean, which is what an index serves.""",
    "open_clip_config.json": """With open_clip:

    import open_clip
    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:FOLDER")
    tokenizer = open_clip.get_tokenizer("local-dir:FOLDER")""",
    "image.onnx": """With ONNX Runtime: `image.onnx` takes `image` (batch, 3, {height}, {width}), float32, and gives
`served` (batch, {dim}) and `branches` (batch, {branches}, {dim}); `text.onnx` takes `text` (batch, {context}), int64
token ids of CLIP's tokenizer padded with 0, and gives `served` (batch, {dim}). All vectors have length one, so scores
are products.""",
}
_KINDS = {
    "cls": "class tokens, isolation {isolation}",
    "mlp": "a second MLP layer each in the last {blocks} blocks",
    "query": "queries in the last {blocks} blocks",
}


def model_card(
    model: HolisticCLIP, description: Mapping[str, Any], files: Sequence[str], facts: Mapping[str, str]
) -> str:
    """Markdown. `description` is the model folder's config.json, `files` what lies beside the card."""
    recipe = description["recipe"]
    parts = [
        "# A CLIP with several image branches" if len(model.slots) > 1 else "# A CLIP",
        "Trained with Holism: many captions per image, a branch of the image encoder for each kind of caption.",
        "## Architecture",
        _table(_architecture(model)),
        "## Branches and slots",
        _slots(model, description["slots"]),
        "## Training",
        _table(
            {
                "steps": str(description["step"]),
                "images per step": str(recipe["global_batch"]),
                "losses": ", ".join(f"{name} × {weight:g}" for name, weight in recipe["losses"].items()),
                "started from": str(recipe["warm_start"] or "nothing"),
                "learning rate, weight decay": f"{recipe['lr']:g}, {recipe['weight_decay']:g}",
                **facts,
            }
        ),
        "The whole recipe is in `config.json`." if "config.json" in files else _recipe(recipe),
        "## How to load it",
        *(_loading(model, file) for file in files if file in _LOADING),
        "## Preprocessing",
        _preprocess(description["preprocess"]),
    ]
    return "\n\n".join(parts) + "\n"


def _architecture(model: HolisticCLIP) -> dict[str, str]:
    vit, text = model.visual, model.transformer
    patch, size = vit.conv1.kernel_size[0], " × ".join(map(str, vit.image_size))
    several = len(model.slots) > 1
    kind = _KINDS[model.options.kind].format_map(vars(model.options))
    return {
        "image tower": f"ViT, width {vit.width}, {len(vit.blocks)} blocks, patches of {patch} px, images of {size}",
        "branches": f"{len(model.slots)}, {kind}" if several else "one: plain CLIP",
        "projection": "one a branch" if several and model.options.projection == "branch" else "shared",
        "text tower": f"width {text.width}, {len(text.resblocks)} blocks, {model.context_length} tokens",
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


def _loading(model: HolisticCLIP, file: str) -> str:
    height, width = model.visual.image_size
    if file != "image.onnx":
        return _LOADING[file]
    return _LOADING[file].format(
        height=height,
        width=width,
        dim=model.architecture["embed_dim"],
        branches=len(model.slots),
        context=model.context_length,
    )


def _preprocess(preprocess: Mapping[str, Any]) -> str:
    return (
        f"The shorter side to {preprocess['size']} px ({preprocess['interpolation']}), centre crop, values in [0, 1], "
        f"minus {preprocess['mean']}, over {preprocess['std']}."
    )
