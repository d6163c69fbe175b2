"""A tiny open_clip model that has learnt colours, in a folder that open_clip loads, and pictures of one colour."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {
    "red": (200, 30, 40),
    "green": (40, 160, 60),
    "blue": (40, 60, 200),
    "yellow": (230, 210, 50),
    "black": (15, 15, 20),
    "white": (240, 240, 235),
    "purple": (130, 40, 160),
    "orange": (240, 130, 30),
}
SIZE = 32
MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": SIZE, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}


def picture(color: str, seed: int) -> Image.Image:
    """A noisy picture of one colour."""
    rng = np.random.default_rng(seed)
    pixels = np.array(COLORS[color]) + rng.normal(0, 12, (SIZE, SIZE, 3)) + rng.normal(0, 8, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def caption(color: str, wording: int) -> str:
    """One of four ways to say the colour."""
    said = [f"A {color} surface.", f"{color}", f"Everything is {color} here.", f"a plain wall painted {color}"]
    return said[wording % len(said)]


def write_model(folder: Path, steps: int = 70) -> str:
    """Train for a few seconds and save; returns the name that open_clip knows it by."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"}
    config = {"model_cfg": MODEL, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**MODEL)
    tokenizer = open_clip.SimpleTokenizer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    names = list(COLORS)
    for step in range(steps):
        pixels = np.stack([np.asarray(picture(name, step * 100 + i)) for i, name in enumerate(names)])
        image = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        text = tokenizer([caption(name, step) for name in names])
        image_D, text_D = model.encode_image(image, normalize=True), model.encode_text(text, normalize=True)
        logits = 20 * image_D @ text_D.T
        target = torch.arange(len(names))
        loss = torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return f"local-dir:{folder}"
