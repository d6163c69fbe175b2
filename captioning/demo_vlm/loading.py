"""Loads the shipped demo VLM with plain transformers: for its own evaluation and tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from pipeline.errors import InputError

WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class DemoVlm:
    """The model with its processor, ready to answer questions about pictures."""

    model: LlavaForConditionalGeneration
    processor: LlavaProcessor

    @classmethod
    def load(cls, folder: Path = WEIGHTS) -> DemoVlm:
        """From a folder of weights. Raises InputError where it holds none, and what transformers raises of damage."""
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{folder} holds no model; name a folder that captioning.demo_vlm.train left (OUT/weights)"
            )
        model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
        return cls(model, LlavaProcessor.from_pretrained(folder))

    def answer(
        self, images: list[Image.Image], questions: list[str], max_tokens: int, batch: int = 64
    ) -> Iterator[str]:
        """The greedy answer to one question per image, in order."""
        prompts = [self.prompt(question) for question in questions]
        for start in range(0, len(images), batch):
            inputs = self.processor(
                images=images[start : start + batch],
                text=prompts[start : start + batch],
                padding=True,
                return_tensors="pt",
            )
            inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
            with torch.inference_mode():
                tokens = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
            new = tokens[:, inputs["input_ids"].shape[1] :]
            yield from self.processor.batch_decode(new, skip_special_tokens=True)

    def prompt(self, question: str) -> str:
        """The chat template applied to one image and a question."""
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
