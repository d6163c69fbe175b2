"""A CLIP or SigLIP in a folder as transformers saves it, with its tokenizer and image processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from evaluation.encoder import Encoder
from evaluation.models.one_vector import BRANCH, OneVector, OneVectorAndPatches, upright_first
from evaluation.models.source import Source
from pipeline.errors import InputError


def load(name: str, source: Source) -> Encoder:
    """From the folder alone: nothing is fetched."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    if not Path(source.place).is_dir():
        raise InputError(f"evaluate.models: transformers reads folders of this machine; copy {source.place} here")
    try:
        parts = [
            kind.from_pretrained(source.place, local_files_only=True)
            for kind in (AutoModel, AutoImageProcessor, AutoTokenizer)
        ]
    except Exception as error:  # transformers raises whatever it stumbles over
        raise InputError(
            f"evaluate.models: transformers cannot load {source.place} ({str(error).splitlines()[0]}); the folder "
            "needs the model, its preprocessor_config.json and its tokenizer"
        ) from error
    model, processor, tokenizer = parts[0].float().eval(), parts[1], parts[2]
    width = int(model.config.text_config.max_position_embeddings)

    def prepare(image: Image.Image) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def tokens(texts: list[str]) -> Tensor:
        """At full width: SigLIP was trained so, and looks at what follows a text."""
        found = tokenizer(texts, padding="max_length", max_length=width, truncation=True, return_tensors="pt")[
            "input_ids"
        ]
        return torch.as_tensor(found)

    identity = source.digest
    return Encoder(name, identity, identity, _encoders(model), upright_first(prepare), tokens, BRANCH, False)


def _encoders(model: Any) -> OneVector:
    vision: Any = model.vision_model
    patch_size = vision.config.patch_size

    def patches(image_BCSS: Tensor) -> Tensor:
        token_BLW = vision(pixel_values=image_BCSS).last_hidden_state
        rows, columns = (side // patch_size for side in image_BCSS.shape[-2:])
        patch_BND = joint(token_BLW[:, -rows * columns :])
        return patch_BND.unflatten(1, (rows, columns))

    def joint(patch_BNW: Tensor) -> Tensor:
        """CLIP projects tokens. SigLIP has a head that attends to them, which here sees each one alone."""
        if hasattr(model, "visual_projection"):
            return model.visual_projection(vision.post_layernorm(patch_BNW))
        return vision.head(patch_BNW.flatten(0, 1)[:, None]).unflatten(0, patch_BNW.shape[:2])

    return OneVectorAndPatches(
        model,
        lambda image_BCSS: _vector(model.get_image_features(pixel_values=image_BCSS)),
        lambda text_TL: _vector(model.get_text_features(input_ids=text_TL)),
        patches,
        vision.encoder.layers[-1].self_attn,
    )


def _vector(found: Any) -> Tensor:
    """transformers 5 gives the vector among other things."""
    vector: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return vector
