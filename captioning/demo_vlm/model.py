"""The demo VLM's architecture: LLaVA with a small CLIP tower and a small Llama, and how it is written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from captioning.demo_vlm.pool import PATCH
from pipeline.demo_world.scene import SIDE

IMAGE_TOKENS = (SIDE // PATCH) ** 2
IMAGE_MEAN = IMAGE_STD = 0.5


def vision_config() -> CLIPVisionConfig:
    """1.9 M parameters: what the demo world needs to be seen."""
    return CLIPVisionConfig(
        hidden_size=160, intermediate_size=640, num_hidden_layers=6, num_attention_heads=5, image_size=SIDE,
        patch_size=PATCH,
    )  # fmt: skip


def fresh_tower() -> CLIPVisionModel:
    """A tower to be trained. Its positions start as two-dimensional sinusoids as strong as the patches themselves:
    CLIP's own start is twenty times weaker, and for long the tower does not know where anything is.

    Attention is plain matrix products, whose backward pass is several times faster on a CPU than the fused kernel's.
    """
    config = vision_config()
    config._attn_implementation = "eager"
    tower = CLIPVisionModel(config)
    grid, quarter = SIDE // PATCH, config.hidden_size // 4
    frequency = 1.0 / 100 ** (torch.arange(quarter) / quarter)
    angle_PQ = torch.arange(grid)[:, None] * frequency
    wave_PH = torch.cat([angle_PQ.sin(), angle_PQ.cos()], dim=1)
    rows_GGH, columns_GGH = wave_PH[:, None].expand(grid, grid, -1), wave_PH[None].expand(grid, grid, -1)
    with torch.no_grad():
        positions = torch.cat([rows_GGH, columns_GGH], dim=-1).flatten(0, 1)
        tower.embeddings.position_embedding.weight[1:] = 0.3 * positions
    return tower


@dataclass(frozen=True)
class TextSize:
    """Of the language model: numbers in a token's vector, a multiple of 32, and layers."""

    width: int = 192
    layers: int = 4


def build_model(
    vocabulary: int, image_token: int, end_token: int, pad_token: int, size: TextSize | None = None
) -> LlavaForConditionalGeneration:
    """A LLaVA with fresh weights: of 3.8 M parameters, unless its language model has another size.

    The image's 64 patch tokens come from the tower's last layer.
    """
    size = size or TextSize()
    heads = size.width // 32
    text = LlamaConfig(
        vocab_size=vocabulary, hidden_size=size.width, intermediate_size=size.width * 7 // 3,
        num_hidden_layers=size.layers, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None, eos_token_id=end_token,
        pad_token_id=pad_token,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision_config(), text_config=text, image_token_index=image_token, projector_hidden_act="gelu",
        vision_feature_select_strategy="default", vision_feature_layer=-1, image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
    )  # fmt: skip
    config._attn_implementation = "eager"  # its backward pass is several times faster on a CPU; not stored
    return LlavaForConditionalGeneration(config)


def save_model(model: LlavaForConditionalGeneration, folder: Path) -> None:
    """config.json, generation_config.json and model.safetensors in bfloat16.

    vLLM looks for the tower under `vision_tower.vision_model.`, transformers 5 saves it without the second part and
    reads both, so the longer names are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = ["LlavaForConditionalGeneration"]
    model.config.dtype = "bfloat16"
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tensors = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied to the embedding
            continue
        tensors[_served_name(name)] = tensor.detach().to("cpu", torch.bfloat16).contiguous().clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _served_name(name: str) -> str:
    """`model.vision_tower.x` becomes `vision_tower.vision_model.x`, and so on, the way LLaVA 1.5 is stored."""
    name = name.removeprefix("model.")
    if name.startswith("vision_tower.") and not name.startswith("vision_tower.vision_model."):
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    return name
