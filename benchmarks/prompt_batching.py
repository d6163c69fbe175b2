"""All prompts of an image together, against one pass over the images per prompt with all caches cleared in between.

    python -m benchmarks.prompt_batching [--images 300] [--tokens 64,256,1024]

64 image tokens are the demo VLM itself; more are its architecture for larger pictures, with random weights. Both
ways go through the same engine, in this process, one after the other, in turns; engine start is not counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from captioning import prompts
from captioning.config import EngineConfig, ModelReference
from captioning.engines.base import Answer, Request
from captioning.engines.vllm import VllmEngine
from captioning.models import resolve
from pipeline.config import build
from pipeline.demo_world.render import render
from pipeline.demo_world.scene import sample

PATCH, DEMO_TOKENS, NEW_TOKENS = 12, 64, 16
COUNTERS = ("vllm:prefix_cache_queries", "vllm:prefix_cache_hits", "vllm:mm_cache_queries", "vllm:mm_cache_hits")


def larger_model(folder: Path, tokens: int) -> str:
    """The demo VLM's architecture with random weights and so many image tokens (a square number)."""
    import torch
    from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

    from captioning.demo_vlm.loading import WEIGHTS
    from captioning.demo_vlm.model import save_model

    torch.manual_seed(0)
    side = PATCH * round(tokens**0.5)
    config = LlavaConfig.from_pretrained(WEIGHTS)
    config.vision_config.image_size, config.image_seq_length = side, tokens
    config.text_config.max_position_embeddings = 4096
    save_model(LlavaForConditionalGeneration(config), folder)
    processor = AutoProcessor.from_pretrained(WEIGHTS)
    processor.image_processor.size = {"height": side, "width": side}
    processor.image_processor.crop_size = {"height": side, "width": side}
    processor.save_pretrained(folder)
    return str(folder)


def requests(images: int, side: int) -> list[list[Request]]:
    """The paper's prompts about so many scenes, image by image."""
    asked = prompts.load("paper").select(None)
    found = []
    for seed in range(images):
        image = render(sample(seed)).resize((side, side))
        found.append([Request(image, f"scene {seed}", prompt.paraphrases[0], NEW_TOKENS) for prompt in asked])
    return found


@contextmanager
def counted_encodes(engine: VllmEngine) -> Iterator[list[int]]:
    """Counts the images that go through the vision tower (the engine's model runs in this process)."""
    model = engine.llm.llm_engine.model_executor.driver_worker.model_runner.model
    counts, original = [0], model.embed_multimodal

    def counting(**inputs: Any) -> Any:
        found = original(**inputs)
        counts[0] += len(found)
        return found

    model.embed_multimodal = counting
    try:
        yield counts
    finally:
        model.embed_multimodal = original


def counters(engine: VllmEngine) -> dict[str, float]:
    """vLLM's own counters, by name."""
    return {
        metric.name: getattr(metric, "value", 0.0) for metric in engine.llm.get_metrics() if metric.name in COUNTERS
    }


def clear(engine: VllmEngine) -> None:
    """Empty the prefix cache, the encoder cache and the processor cache."""
    engine.llm.reset_prefix_cache()
    engine.llm.reset_mm_cache()
    engine.llm.llm_engine.reset_encoder_cache()


def together(engine: VllmEngine, asked: Sequence[Sequence[Request]]) -> list[Answer]:
    """As the caption stage does it."""
    futures = [engine.submit(image) for image in asked]
    return [future.result() for image in futures for future in image]


def pass_per_prompt(engine: VllmEngine, asked: Sequence[Sequence[Request]]) -> list[Answer]:
    """One run over all images for each prompt, caches cleared between the runs."""
    answers = []
    for prompt in zip(*asked, strict=True):
        futures = [engine.submit([request]) for request in prompt]
        answers += [future.result() for [future] in futures]
        clear(engine)
    return answers


def measure(engine: VllmEngine, way: Any, asked: Sequence[Sequence[Request]]) -> dict[str, float]:
    """Captions per second, vision encodes per image, and shares of cache hits."""
    clear(engine)
    before, started = counters(engine), time.perf_counter()
    with counted_encodes(engine) as encodes:
        answers = way(engine, asked)
    seconds, after = time.perf_counter() - started, counters(engine)
    moved = {name: after[name] - before[name] for name in COUNTERS}
    return {
        "captions/s": len(answers) / seconds,
        "encodes/image": encodes[0] / len(asked),
        "prefix hits": moved["vllm:prefix_cache_hits"] / max(1, moved["vllm:prefix_cache_queries"]),
        "processor hits": moved["vllm:mm_cache_hits"] / max(1, moved["vllm:mm_cache_queries"]),
        "prompt tokens": sum(answer.prompt_tokens for answer in answers) / len(answers),
        "output tokens": sum(answer.output_tokens for answer in answers) / len(answers),
    }


def compare(tokens: int, images: int, threads: int) -> str:
    """Both ways in turns, twice each; the better of each counts. Returns rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        source = "demo_vlm" if tokens == DEMO_TOKENS else larger_model(Path(folder), tokens)
        options = {"disable_log_stats": False, "max_num_batched_tokens": 4096}
        config = build(EngineConfig, {"kind": "vllm", "max_model_len": 64 + 2 * tokens, "options": options})
        engine = VllmEngine(config, resolve(ModelReference(model=source), config), threads)
        engine.start()
        asked = requests(images, PATCH * round(tokens**0.5))
        together(engine, asked[:8])
        found: dict[str, dict[str, float]] = {}
        for _ in range(2):
            for way in (together, pass_per_prompt):
                result = measure(engine, way, asked)
                name = way.__name__.replace("_", " ")
                if name not in found or result["captions/s"] > found[name]["captions/s"]:
                    found[name] = result
        engine.stop()
    ratio = found["together"]["captions/s"] / found["pass per prompt"]["captions/s"]
    lines = []
    for name, result in found.items():
        lines.append(
            f"| {tokens} | {name} | {result['captions/s']:.1f} | {result['encodes/image']:.2f} "
            f"| {result['prefix hits']:.1%} | {result['processor hits']:.1%} | {result['prompt tokens']:.0f} "
            f"| {result['output tokens']:.1f} | {ratio if name == 'together' else 1:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table of benchmarks/captioning.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prompt_batching", description=__doc__)
    parser.add_argument("--images", type=int, default=300, help="at 64 tokens; fewer with more")
    parser.add_argument("--tokens", default="64,256,1024")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print(
        "| image tokens | | captions/s | vision encodes/image | prefix tokens cached | processor cache hits ", end=""
    )
    print("| prompt tokens | output tokens | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for tokens in map(int, options.tokens.split(",")):
        images = max(16, options.images * DEMO_TOKENS // tokens)
        print(compare(tokens, images, options.threads), flush=True)


if __name__ == "__main__":
    main()
