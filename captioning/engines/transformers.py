"""Plain transformers: slower than vLLM, but runs wherever PyTorch does (macOS, ARM, any GPU).

Questions of one kind of sampling are answered in padded batches. There is no cache between questions, so every
one pays for its image again, and nothing holds the model to JSON: an answer that is none becomes an error row.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Sequence
from typing import Any

from captioning.config import EngineConfig
from captioning.engines.base import Answer, Request, load_error
from captioning.engines.service import EngineThread
from captioning.models import Model
from pipeline.errors import EngineError

WINDOW = 8  # batches that are looked at to put questions of similar length together


class TransformersEngine(EngineThread):
    """`AutoModelForImageTextToText` with its processor; greedy and sampled text."""

    name = "transformers"

    def __init__(self, config: EngineConfig, model: Model, threads: int = 1) -> None:
        super().__init__()
        self.config, self.model, self.threads = config, model, threads
        self.at_once = WINDOW * config.batch_size
        self.version = importlib.metadata.version("transformers")
        self._model: Any = None
        self._processor: Any = None

    def _load(self) -> None:
        """Load model and processor, onto a GPU if there is one."""
        if self.model.is_folder:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(self.threads)
        revision = None if self.model.is_folder else self.model.revision
        trust = bool(self.config.options.get("trust_remote_code"))
        try:
            self._processor = transformers.AutoProcessor.from_pretrained(
                self.model.source, revision=revision, trust_remote_code=trust
            )
            self._model = transformers.AutoModelForImageTextToText.from_pretrained(
                self.model.source,
                revision=revision,
                trust_remote_code=trust,
                dtype=torch.float32 if device == "cpu" else torch.bfloat16,
            )
        except Exception as error:
            raise load_error(self.model, error) from error
        if getattr(self._processor, "chat_template", None) is None:
            raise EngineError(f"the model {self.model.source} has no chat template; add a chat_template.jinja to it")
        self._processor.tokenizer.padding_side = "left"
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token
        self._model = self._model.to(device).eval()

    def _busy(self) -> bool:
        return False

    def _step(self) -> None:
        """Answer one batch: of all that wait, those sampled like the first, the ones of similar length."""
        asked = self.take(WINDOW * self.config.batch_size)
        like_first = [one for one in asked if _kind(one[0]) == _kind(asked[0][0])]
        like_first.sort(key=lambda one: len(one[0].prompt))
        batch = like_first[: self.config.batch_size]
        chosen = {id(future) for _, future in batch}
        self.put_back([one for one in asked if id(one[1]) not in chosen])
        try:
            answers: list[Answer | Exception] = list(self._answer([request for request, _ in batch]))
        except Exception:
            answers = [self._answer_alone(request) for request, _ in batch]  # one bad request costs only itself
        for (_, future), answer in zip(batch, answers, strict=True):
            self.answer(future, answer)

    def _answer_alone(self, request: Request) -> Answer | Exception:
        try:
            return self._answer([request])[0]
        except Exception as error:
            return error

    def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        import torch

        started = time.perf_counter()
        inputs = self._processor(
            text=[self._question(request.prompt) for request in requests],
            images=[request.image for request in requests],
            padding=True,
            add_special_tokens=False,  # the chat template has written them
            return_tensors="pt",
        ).to(self._model.device, self._model.dtype)
        prepared = (time.perf_counter() - started) / len(requests)
        first = requests[0]
        arguments = {"logits_processor": _drawing(requests, self._model.device)} if first.temperature > 0 else {}
        with torch.inference_mode():
            tokens_BT = self._model.generate(
                **inputs,
                max_new_tokens=first.max_tokens,
                pad_token_id=self._processor.tokenizer.pad_token_id,
                do_sample=False,
                **arguments,
            )
        lengths_B = inputs["attention_mask"].sum(1).tolist()
        new_BT = tokens_BT[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._read(tokens, length, prepared) for tokens, length in zip(new_BT, lengths_B, strict=True)]

    def _read(self, tokens: list[int], prompt_tokens: int, prepared: float) -> Answer:
        ends = self._model.generation_config.eos_token_id
        stops = {ends} if isinstance(ends, int) else set(ends or ())
        stop = next((index for index, token in enumerate(tokens) if token in stops), None)
        kept = tokens if stop is None else tokens[:stop]
        return Answer(
            text=self._processor.tokenizer.decode(kept, skip_special_tokens=True),
            prompt_tokens=int(prompt_tokens),
            output_tokens=len(tokens) if stop is None else stop + 1,
            finish_reason="length" if stop is None else "stop",
            preprocess_seconds=prepared,
        )

    def _question(self, prompt: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text: str = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return text

    def _unload(self) -> None:
        self._model = None


def _kind(request: Request) -> tuple[Any, ...]:
    return request.max_tokens, request.temperature, request.top_p


def _drawing(requests: Sequence[Request], device: Any) -> Any:
    """Draw each text with a seed of its own, whatever else is in the batch: the largest of the log-probabilities with
    Gumbel noise added is a draw from them."""
    import torch
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    generators = [torch.Generator(device).manual_seed(request.seed or 0) for request in requests]

    def add_noise(_: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        noise_BV = torch.stack([
            torch.empty(scores_BV.shape[1], device=device).exponential_(generator=generator)
            for generator in generators
        ])  # fmt: skip
        return scores_BV - noise_BV.log()

    first = requests[0]
    return LogitsProcessorList([TemperatureLogitsWarper(first.temperature), TopPLogitsWarper(first.top_p), add_noise])
