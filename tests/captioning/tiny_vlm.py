"""A LLaVA of random weights, small enough to build in a test and real enough for vLLM and transformers.

It has the parts of any LLaVA (CLIP tower, projector, Llama, byte-level BPE, chat template), so that engines are
tested on the path a real model takes; what it says means nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}\n"
    "{% else %}ASSISTANT: {{ message['content'][0]['text'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IMAGE_TOKENS = 64  # of the default size: 64 pixels in patches of 8
WORDS = "the a one red dog boat beach sky tree describe image in detail of with and near background main object. "


def build(
    folder: Path, *, image_size: int = 64, vision_width: int = 32, text_width: int = 64, layers: int = 2
) -> Path:
    """Write the model to `folder` in the layout vLLM expects, and return the folder."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    processor, vocabulary, image_token = _processor(image_size)
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model", "hidden_size": vision_width, "intermediate_size": 4 * vision_width,
            "num_hidden_layers": layers, "num_attention_heads": max(2, vision_width // 32), "image_size": image_size,
            "patch_size": 8, "projection_dim": vision_width,
        },
        text_config={
            "model_type": "llama", "hidden_size": text_width, "intermediate_size": 3 * text_width,
            "num_hidden_layers": layers, "num_attention_heads": text_width // 32,
            "num_key_value_heads": text_width // 32, "vocab_size": vocabulary, "max_position_embeddings": 512,
            "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": True,
        },
        image_token_index=image_token, vision_feature_layer=-1, vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.generation_config.update(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    weights = folder / "model.safetensors"
    save_file({_vllm_name(key): value for key, value in load_file(weights).items()}, weights, {"format": "pt"})
    return folder


def _vllm_name(key: str) -> str:
    """transformers 5 drops a level of the vision tower's names that vLLM 0.32 expects."""
    return key.replace("vision_tower.", "vision_tower.vision_model.") if "vision_model" not in key else key


def _processor(image_size: int) -> tuple[Any, int, int]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"], padding_side="left",
    )  # fmt: skip
    images = CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    processor = LlavaProcessor(
        images, fast, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>", chat_template=TEMPLATE,
    )  # fmt: skip
    return processor, len(fast), fast.convert_tokens_to_ids("<image>")
