"""The whole caption stage against raw `vllm.LLM.generate` on the same requests, on every core of this machine.

    python -m benchmarks.caption_throughput [--images 2048] [--engines 2]

Raw: so many processes with one vLLM each, pictures decoded and prompts written beforehand, halves of one list, all
starting at the same moment. Stage: tars, Ray Data, so many actors, Parquet and commits. Settings of the engines are
the same. Engine start is not counted: an actor's clock starts with its first question. What each side's processes
took of the CPU is listed, since that is what overhead costs where all cores are busy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from captioning import prompts
from captioning.config import CaptionConfig, EngineConfig, ModelReference
from captioning.models import resolve
from captioning.store import records
from pipeline.cluster.config import ClusterConfig
from pipeline.config import build
from pipeline.demo_world.render import render
from pipeline.demo_world.scene import sample
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.stage import STAGE as INGEST
from pipeline.manifest import Manifest
from pipeline.stage import execute
from pipeline.stage import resolve as resolve_stages
from pipeline.workspace import Workspace

SEQUENCES = 256


def write_pictures(folder: Path, images: int) -> Path:
    """So many scenes as PNG files."""
    folder.mkdir(parents=True)
    for seed in range(images):
        render(sample(seed)).save(folder / f"{seed:06d}.png")
    return folder


def raw_half(folder: str, names: list[str], threads: int, gate: Any, report: Any) -> None:
    """One process of the raw side: everything ready, wait for the others, then `generate` once."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from PIL import Image
    from vllm import SamplingParams

    from captioning.engines.vllm import VllmEngine

    config = EngineConfig(kind="vllm", max_num_seqs=SEQUENCES)
    engine = VllmEngine(config, resolve(ModelReference(model="demo_vlm"), config), threads)
    engine.start()
    llm, asked = engine.llm, prompts.load("paper").select(None)
    tokenizer = llm.get_tokenizer()

    def written(question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        chat = [{"role": "user", "content": content}]
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))

    texts = [(written(prompt.paraphrases[0]), prompt.max_tokens) for prompt in asked]
    requests, parameters = [], []
    for name in names:
        image = Image.open(Path(folder, name)).convert("RGB")
        for text, max_tokens in texts:
            data = {"image": image}
            requests.append({"prompt": text, "multi_modal_data": data, "multi_modal_uuids": {"image": [name]}})
            parameters.append(SamplingParams(temperature=0, max_tokens=max_tokens))
    llm.generate(requests[:14], parameters[:14], use_tqdm=False)
    llm.reset_prefix_cache()
    llm.reset_mm_cache()
    gate.wait()
    cpu, started = time.process_time(), time.time()
    outputs = llm.generate(requests, parameters, use_tqdm=False)
    report.put((started, time.time(), time.process_time() - cpu, sum(len(o.outputs[0].token_ids) for o in outputs)))
    engine.stop()


def raw(folder: Path, engines: int, threads: int) -> dict[str, float]:
    """Captions per second of `generate` in so many processes at once."""
    context = multiprocessing.get_context("spawn")
    gate, report = context.Barrier(engines), context.Queue()
    names = sorted(path.name for path in folder.iterdir())
    halves = [names[index::engines] for index in range(engines)]
    processes = [context.Process(target=raw_half, args=(str(folder), half, threads, gate, report)) for half in halves]
    for process in processes:
        process.start()
    found = [report.get() for _ in processes]
    for process in processes:
        process.join()
    started, ended = min(one[0] for one in found), max(one[1] for one in found)
    captions = len(names) * len(prompts.load("paper").select(None))
    return {
        "captions/s": captions / (ended - started),
        "cpu": sum(one[2] for one in found),
        "output tokens": sum(one[3] for one in found),
    }


def stage(folder: Path, root: Path, engines: int, threads: int) -> dict[str, float]:
    """Captions per second of the caption stage under Ray, from each engine's first question to the stage's end."""
    from captioning.stage import STAGE

    workspace = Workspace(str(root))
    data = {"source": {"kind": "folder", "path": str(folder)}, "shard_images": 512}
    ray = {"actors": {"min": engines, "max": engines, "cpus": threads}}
    configs: dict[str, Any] = {
        "ingest": build(IngestConfig, data),
        "caption": build(CaptionConfig, {"engine": {"kind": "vllm", "max_num_seqs": SEQUENCES}, "ray": ray}),
    }
    execute(resolve_stages([INGEST], configs, workspace)["ingest"], workspace)
    own = os.times()
    cluster = ClusterConfig(num_cpus=engines * threads)
    manifest = execute(resolve_stages([INGEST, STAGE], configs, workspace)["caption"], workspace, cluster=cluster)
    ended, used = time.time(), os.times()
    return _summary(manifest, ended) | {"driver cpu": used.user + used.system - own.user - own.system}


def _summary(manifest: Manifest, ended: float) -> dict[str, float]:
    rate, parts = 0.0, records(manifest)
    for worker in {part.detail["worker"] for part in parts}:
        own = [part for part in parts if part.detail["worker"] == worker]
        rate += sum(part.rows for part in own) / (ended - min(part.detail["began"] for part in own))
    spent = {
        name: sum(part.detail[f"{name}_seconds"] for part in parts) for name in ("decode", "preprocess", "encode")
    }
    return {"captions/s": rate, "output tokens": float(manifest.counts["output_tokens"]), **spent}


def main() -> None:
    """Print the tables of benchmarks/captioning.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.caption_throughput", description=__doc__)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each engine")
    parser.add_argument("--rounds", type=int, default=2, help="raw and stage in turns")
    options = parser.parse_args()
    print("| round | raw captions/s | stage captions/s | ratio | raw CPU s | driver CPU s | decode s | encode s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder, rates = write_pictures(Path(temporary, "pictures"), options.images), list[tuple[float, float]]()
        for number in range(1, options.rounds + 1):
            plain = raw(folder, options.engines, options.threads)
            whole = stage(folder, Path(temporary, f"workspace-{number}"), options.engines, options.threads)
            print(
                f"| {number} | {plain['captions/s']:.1f} | {whole['captions/s']:.1f} "
                f"| {whole['captions/s'] / plain['captions/s']:.3f} | {plain['cpu']:.1f} | {whole['driver cpu']:.1f} "
                f"| {whole['decode']:.1f} | {whole['encode']:.1f} |",
                flush=True,
            )
            rates.append((plain["captions/s"], whole["captions/s"]))
            print(f"output tokens: raw {plain['output tokens']:,.0f}, stage {whole['output tokens']:,.0f}",
                  file=sys.stderr)  # fmt: skip
        bare, own = (median(side) for side in zip(*rates, strict=True))
        print(f"| median | {bare:.1f} | {own:.1f} | {own / bare:.3f} | | | | |")


if __name__ == "__main__":
    main()
