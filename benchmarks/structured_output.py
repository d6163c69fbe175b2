"""One JSON answer with every perspective, against a question for each: cost, diversity and truth.

    python -m benchmarks.structured_output [--images 300]

Both are asked of the demo VLM about scenes it has not seen, whose truth is known, through the caption stage with one
engine in this process; the clock starts with the engine's first question.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from captioning.config import CaptionConfig
from captioning.curate.selection.lexical import distinct, similarity_matrix
from captioning.curate.selection.padding import mean_pairwise
from captioning.demo_vlm.scoring import is_true
from captioning.stage import STAGE
from captioning.store import records, shard_captions
from pipeline.config import build
from pipeline.demo_world.render import render
from pipeline.demo_world.scene import HELDOUT_OFFSET, sample, truth
from pipeline.ingest import shard_names
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.stage import STAGE as INGEST
from pipeline.manifest import Manifest
from pipeline.stage import execute, resolve
from pipeline.workspace import Workspace

WAYS: dict[str, dict[str, Any]] = {
    "a question each": {"prompts": {"set": "holism"}},
    "one JSON answer": {"prompts": {"set": "holism", "only": ["everything"]}},
    "a question each, temperature 1": {"prompts": {"set": "holism"}, "sampling": {"temperature": 1.0}},
    "one JSON answer, temperature 1": {
        "prompts": {"set": "holism", "only": ["everything"]},
        "sampling": {"temperature": 1.0},
    },
}


def run(workspace: Workspace, folder: Path, settings: dict[str, Any], threads: int) -> tuple[Manifest, float]:
    """Ingest and caption; returns the caption manifest and the seconds since the engine's first question."""
    configs: dict[str, Any] = {
        "ingest": build(IngestConfig, {"source": {"kind": "folder", "path": str(folder)}}),
        "caption": build(CaptionConfig, {"ray": {"enabled": False, "actors": {"cpus": threads}}, **settings}),
    }
    execute(resolve([INGEST], configs, workspace)["ingest"], workspace)
    manifest = execute(resolve([INGEST, STAGE], configs, workspace)["caption"], workspace)
    return manifest, time.time() - min(part.detail["began"] for part in records(manifest))


def figures(manifest: Manifest, ingest: Manifest, seconds: float) -> list[str]:
    """The cells of one row of the table."""
    rows = [
        row for shard in shard_names(ingest) for row in shard_captions(manifest, shard, structured=False).to_pylist()
    ]
    good = [row for row in rows if row["status"] == "ok"]
    names = {row["key"]: Path(row["source"]).stem for row in _images(ingest)}
    images = [list(group) for _, group in itertools.groupby(sorted(good, key=lambda r: r["key"]), lambda r: r["key"])]
    true = sum(is_true(truth(sample(int(names[row["key"]]))), row["prompt_id"], row["text"]) for row in good)
    return [
        f"{len(good) / seconds:.1f}",
        f"{manifest.counts['output_tokens'] / len(images):.0f}",
        f"{manifest.counts['prompt_tokens'] / len(images):.0f}",
        f"{(len(rows) - len(good)) / len(rows):.1%}",
        f"{true / len(good):.1%}",
        f"{sum(mean_similarity([row['text'] for row in image]) for image in images) / len(images):.3f}",
        f"{distinct([row['text'] for row in good], 2) or 0.0:.4f}",
    ]


def _images(ingest: Manifest) -> list[dict[str, Any]]:
    from pipeline.ingest import shard_images

    return [row for shard in shard_names(ingest) for row in shard_images(ingest, shard).to_pylist()]


def mean_similarity(texts: Sequence[str]) -> float:
    """Mean Jaccard similarity of words and word pairs over all pairs of an image's captions."""
    (mean,) = mean_pairwise(similarity_matrix(texts, 2)[None], np.ones((1, len(texts)), bool)).tolist()
    return 0.0 if mean != mean else mean


def main() -> None:
    """Print the table of benchmarks/captioning.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structured_output", description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(
        "| | captions/s | output tokens/image | prompt tokens/image | failed | true to the letter "
        "| similarity within an image | distinct-2 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "pictures")
        folder.mkdir()
        for seed in range(HELDOUT_OFFSET, HELDOUT_OFFSET + options.images):
            render(sample(seed)).save(folder / f"{seed}.png")
        workspace = Workspace(str(Path(temporary, "workspace")))
        for name, settings in WAYS.items():
            manifest, seconds = run(workspace, folder, settings, options.threads)
            ingest = workspace.manifests("ingest")[0]
            print(f"| {name} | {' | '.join(figures(manifest, ingest, seconds))} |", flush=True)


if __name__ == "__main__":
    main()
