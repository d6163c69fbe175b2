"""Captions of another image among honest ones: what `ground` finds with a model that sees, and `support` without any.

Rendered scenes that the model has not seen get the true captions of seven prompts. One image in `--every` gets one of
them from another scene, of which it is not true. The scorer is a Holism checkpoint (`make demo` trains one); without
it only `support` is measured. `--throughput` times encoding with ViT-B-32 instead, of random weights.

    python -m benchmarks.curation_ground --checkpoint demo/workspace/train/RUN/model
    python -m benchmarks.curation_ground --throughput
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

import training
from benchmarks import curation_world
from captioning.curate.corpus.objects import Objects
from captioning.curate.corpus.score_histogram import ScoreHistogram, thresholds
from captioning.curate.draft import Draft
from captioning.curate.gadget import Gadget, run_gadgets
from captioning.curate.gadgets.ground import Ground, GroundConfig, Threshold
from captioning.curate.gadgets.support import Support, SupportConfig
from captioning.curate.measures.config import ScorerConfig
from captioning.curate.measures.dual_encoder import DualEncoder, scorer_digest
from captioning.curate.measures.image_text import ImageText
from pipeline import demo_world, schemas
from pipeline.identity import image_id
from pipeline.storage import Location

FIRST_SEED = 900_000_000  # far from what any model of the demo was trained on
PROMPTS = {
    "detail": "detail", "sentence": "summary", "phrase": "summary", "nouns": "nouns", "main_object": "main_object",
    "background": "background", "style": "style",
}  # fmt: skip
SHARD = "scenes"


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes one behind the other in a file, as a shard's tar holds them."""

    file: Path
    rows: tuple[dict[str, Any], ...]

    @classmethod
    def render(cls, file: Path, count: int) -> Scenes:
        """Write `count` scenes."""
        rows, offset = [], 0
        with file.open("wb") as handle:
            for number in range(count):
                buffer = io.BytesIO()
                demo_world.render(demo_world.sample(FIRST_SEED + number)).save(buffer, "PNG")
                data = buffer.getvalue()
                about = {"shard": SHARD, "key": f"{number:06}", "image_id": image_id(data), "status": "ok"}
                rows.append({**about, "offset": offset, "size": len(data)})
                offset += handle.write(data)
        return cls(file, tuple(rows))

    def images_of(self, _: str) -> pa.Table:
        """The images table."""
        return schemas.table(schemas.IMAGES, self.rows)

    def tar_of(self, _: str) -> str:
        """The file."""
        return str(self.file)


def captions(scenes: Scenes, every: int, seed: int) -> tuple[Draft, np.ndarray, np.ndarray]:
    """The draft, and by row: the prompt, and whether the caption is of another scene."""
    rng = np.random.default_rng(seed)
    truths = [demo_world.truth(demo_world.sample(FIRST_SEED + number)) for number in range(len(scenes.rows))]
    rows, prompts, planted = list[dict[str, Any]](), list[str](), list[bool]()
    for number, (image, truth) in enumerate(zip(scenes.rows, truths, strict=True)):
        spoilt = rng.choice(list(PROMPTS)) if number % every == 0 else None
        for prompt, perspective in PROMPTS.items():
            source = _other(truths, truth, prompt, rng) if prompt == spoilt else truth
            text = demo_world.answer(source, prompt, rng)
            about = {name: image[name] for name in ("shard", "key", "image_id")}
            rows.append(
                {**about, "caption_id": f"{number:06}-{len(rows):07}", "perspective": perspective, "text": text}
            )
            prompts.append(prompt)
            planted.append(source is not truth)
    draft = Draft({name: [row[name] for row in rows] for name in rows[0]})
    assert draft.columns["caption_id"] == [row["caption_id"] for row in rows]
    return draft, np.array(prompts), np.array(planted)


def photo_captions(images: int, every: int, seed: int) -> tuple[Draft, np.ndarray, np.ndarray]:
    """The same for captions as of photos (`curation_world`), with a richer vocabulary and no pictures."""
    rng = Random(seed)
    rows = curation_world.captions(images, seed)
    honest = {row["caption_id"]: row["text"] for row in rows}
    said = {prompt: [row["text"] for row in rows if row["prompt"] == prompt] for prompt in curation_world.PROMPTS}
    for number in range(0, images, every):
        row = rng.choice(rows[number * len(said) : (number + 1) * len(said)])
        row["text"] = rng.choice(said[row["prompt"]])
    rows.sort(key=lambda row: (row["key"], row["caption_id"]))
    names = ("key", "caption_id", "perspective", "text")
    draft = Draft({name: [row[name] for row in rows] for name in names})
    planted = [row["text"] != honest[row["caption_id"]] for row in rows]
    return draft, np.array([row["prompt"] for row in rows]), np.array(planted)


def _other(truths: Sequence[Any], truth: Any, prompt: str, rng: np.random.Generator) -> Any:
    """A scene whose answer is not true of this one."""
    while demo_world.holds(other := truths[rng.integers(len(truths))], prompt, truth):
        pass
    return other


def measure(draft: Draft, gadget: Gadget, prompts: np.ndarray, planted: np.ndarray, score: str) -> None:
    """Apply one gadget and print its table; the draft is as before afterwards."""
    started = time.perf_counter()
    run_gadgets(draft, [gadget])
    seconds = time.perf_counter() - started
    dropped = np.array([verdict is not None for verdict in draft.verdicts])
    scores = np.array([row.get(score, np.nan) for row in draft.scores])
    print("| prompt | captions | planted | dropped | precision | recall | AUC of the score |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in (*PROMPTS, "all"):
        own = prompts == name if name != "all" else np.ones(len(prompts), bool)
        hits = (dropped & planted & own).sum()
        precision = f"{hits / (dropped & own).sum():.3f}" if (dropped & own).any() else "–"
        recall = f"{hits / (planted & own).sum():.3f}"
        area = _area(scores[own & planted], scores[own & ~planted], higher_is_worse=score == "unsupported")
        shown = "–" if name == "all" else f"{area:.4f}"
        print(
            f"| {name} | {own.sum():,} | {(planted & own).sum()} | {(dropped & own).sum()} | {precision} | {recall} "
            f"| {shown} |"
        )
    print(f"\n{seconds:.1f} s, {1e6 * seconds / len(draft):.1f} µs a caption\n")
    draft.verdicts[:] = [None] * len(draft)


def _area(wrong: np.ndarray, right: np.ndarray, *, higher_is_worse: bool) -> float:
    """Chance that a wrong caption looks worse than a right one; captions without a score look right."""
    sign = 1 if higher_is_worse else -1
    wrong, right = (np.nan_to_num(sign * part, nan=-np.inf) for part in (wrong, right))
    return float(np.mean((wrong[:, None] > right[None]) + 0.5 * (wrong[:, None] == right[None])))


def planted_faults(checkpoint: str | None, scenes: int, every: int, quantiles: Sequence[float]) -> None:
    """The tables of both gadgets."""
    with TemporaryDirectory() as folder:
        shown = Scenes.render(Path(folder) / "scenes", scenes)
        draft, prompts, planted = captions(shown, every, seed=0)
        print(f"{len(draft):,} captions of {scenes:,} scenes, {planted.sum()} of another scene\n")
        support(draft, prompts, planted)
        if checkpoint is None:
            return
        scorer = ScorerConfig(checkpoint=checkpoint, device="cpu")
        measured = ImageText(scorer, scorer_digest(scorer), shown, Location.of(folder), training.load)
        started = time.perf_counter()
        measured(draft, range(len(draft)))
        seconds = time.perf_counter() - started
        print(f"scores: {seconds:.1f} s, {scenes / seconds:,.0f} images/s, {len(draft) / seconds:,.0f} captions/s\n")
        statistic = ScoreHistogram(measured, measured.digest)
        histograms = statistic.merge(iter([statistic.of_shard(draft)]))
        for quantile in quantiles:
            limits = thresholds(GroundConfig(scorer=scorer, threshold=Threshold(quantile=quantile)), histograms)
            print(f"ground (quantile {quantile:g})\n")
            measure(draft, Ground(measured, limits), prompts, planted, "image_text")


def support(draft: Draft, prompts: np.ndarray, planted: np.ndarray) -> None:
    """The table of `support`, with the vocabulary learnt from the same captions."""
    objects = Objects(min_images=3)
    vocabulary = objects.merge(iter([objects.of_shard(draft)]))
    print(f"support ({len(vocabulary)} things known)\n")
    measure(draft, Support(SupportConfig(), vocabulary, {}), prompts, planted, "unsupported")


def throughput(images: int, texts: int) -> Mapping[str, float]:
    """Pictures and texts per second through ViT-B-32."""
    import open_clip
    import torch
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    encoder = DualEncoder(model, preprocess, open_clip.get_tokenizer("ViT-B-32"), "cpu", batch_size=64)
    rng = np.random.default_rng(0)
    photo = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)).save(photo, "JPEG")
    data = photo.getvalue()
    truths = [demo_world.truth(demo_world.sample(seed)) for seed in range(64)]
    said = [demo_world.canonical(truths[number % 64], "detail") + f" {number}" for number in range(texts)]
    encoder.encode_texts(said[:8])
    started = time.perf_counter()
    encoder.encode_images(range(images), lambda _: Image.open(io.BytesIO(data)).convert("RGB"))
    between = time.perf_counter()
    encoder.encode_texts(said)
    found = {"images/s": images / (between - started), "texts/s": texts / (time.perf_counter() - between)}
    print(
        f"ViT-B-32, {torch.get_num_threads()} threads: " + ", ".join(f"{k[:-2]} {v:.1f}/s" for k, v in found.items())
    )
    return found


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint")
    parser.add_argument("--scenes", type=int, default=2858)
    parser.add_argument("--every", type=int, default=3, help="one image in so many has a caption of another scene")
    parser.add_argument("--quantiles", type=float, nargs="+", default=[0.025, 0.05, 0.1])
    parser.add_argument("--photos", action="store_true", help="support alone, on captions as of photos")
    parser.add_argument("--throughput", action="store_true")
    options = parser.parse_args()
    if options.throughput:
        throughput(images=256, texts=512)
    elif options.photos:
        draft, prompts, planted = photo_captions(options.scenes, options.every, seed=1)
        print(f"{len(draft):,} captions of {options.scenes:,} photos, {planted.sum()} of another photo\n")
        support(draft, prompts, planted)
    else:
        planted_faults(options.checkpoint, options.scenes, options.every, options.quantiles)


if __name__ == "__main__":
    main()
