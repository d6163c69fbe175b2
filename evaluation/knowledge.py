"""What each branch knows of a few pictures: what in them moves its score for a text, and the captions nearest to it.

A branch is asked with a text that is true for the picture, of its own perspective where there is one: what moves its
score is measured by covering parts (`evaluation.occlusion`). Nearest are captions among all of the benchmark's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from evaluation.benchmarks import Benchmark
from evaluation.branch_views import BranchView, Caption, Known
from evaluation.encoder import Encoder
from evaluation.features import EncodedBenchmark
from evaluation.occlusion import relevance
from evaluation.task import Subject
from pipeline import pictures
from pipeline.thumbnails import SIDE, data_uri

PICTURES, NEAREST = 4, 3
DARKEST = 0.18  # brightness of what does not move the score
BLOCK = 8192  # captions that are scored at a time
BATCH = 64  # covered pictures that are encoded together, at most
TrueTexts = dict[str, list[str]]  # by perspective, those that are true for a picture


def known(subject: Subject) -> tuple[Known, ...]:
    """A few pictures drawn by seed; none for a model of one branch, or where no text is true for a picture."""
    encoder, benchmark, found = subject.encoder, subject.benchmark, subject.features
    if len(encoder.branches) < 2 or not benchmark.queries:
        return ()
    told = np.unique(np.concatenate([queries.pair_image_P for queries in benchmark.queries]))
    rng = np.random.default_rng(subject.config.seed)
    drawn = np.sort(rng.choice(told, size=min(PICTURES, len(told)), replace=False)).tolist()
    nearest_XHK = _nearest(found.branch_NHD[drawn].float(), benchmark, found)
    return tuple(_known(subject, image, nearest_HK) for image, nearest_HK in zip(drawn, nearest_XHK, strict=True))


def true_texts(benchmark: Benchmark, image: int) -> TrueTexts:
    """The texts that are true for a picture."""
    found: TrueTexts = {}
    for queries in benchmark.queries:
        if texts := [queries.texts[text] for text in queries.pair_text_P[queries.pair_image_P == image]]:
            found[queries.perspective] = texts
    return found


def lit(image: Image.Image, relevance_RC: np.ndarray) -> Image.Image:
    """The image, as bright as it is relevant: the most relevant cell keeps its brightness, what is of none is dark."""
    share_RC = np.maximum(relevance_RC, 0) / max(relevance_RC.max(), 1e-12)
    mask = Image.fromarray((255 * share_RC).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    dark = Image.eval(image, lambda value: round(DARKEST * value))
    return Image.composite(image, dark, mask)


def _known(subject: Subject, image: int, nearest_HK: Sequence[Sequence[Caption]]) -> Known:
    encoder, benchmark, found = subject.encoder, subject.benchmark, subject.features
    true = true_texts(benchmark, image)
    asked = [_asked(branch, true) for branch in encoder.branches]
    text_HD = found.texts([caption.text for caption in asked])
    image_CSS = encoder.preprocess(pictures.decode(benchmark.image(image).read())[0])
    batch = min(BATCH, subject.config.image_batch)
    relevance_HRC = relevance(encoder.model.encode_branches, image_CSS.to(text_HD.device), text_HD, batch)
    cosine_H = (found.branch_NHD[image].float() * text_HD).sum(-1).tolist()
    picture = as_taken(encoder, image_CSS)
    views = []
    for h, branch in enumerate(encoder.branches):
        nearest = [replace(told, is_true=told.text in true.get(told.perspective, ())) for told in nearest_HK[h]]
        fall, bright = float(relevance_HRC[h].max()), data_uri(lit(picture, relevance_HRC[h]))
        views.append(BranchView(branch, asked[h], cosine_H[h], fall, bright, tuple(nearest)))
    return Known(benchmark.files[image], data_uri(picture), tuple(views))


def _asked(branch: str, true: TrueTexts) -> Caption:
    """The first text of the branch's own perspective that is true, or of the first perspective that has one."""
    perspective = branch if branch in true else next(iter(true))
    return Caption(true[perspective][0], perspective)


def as_taken(encoder: Encoder, image_CSS: Tensor) -> Image.Image:
    """A preprocessed picture as an image again, cut or squashed as the model takes it.

    What preprocessing makes of black and of white undoes its normalisation, whatever that is.
    """
    size = (image_CSS.shape[2], image_CSS.shape[1])
    black_CSS, white_CSS = (encoder.preprocess(Image.new("RGB", size, colour)) for colour in ("black", "white"))
    share_CSS = ((image_CSS - black_CSS) / (white_CSS - black_CSS)).clamp(0, 1)
    image = Image.fromarray((255 * share_CSS).round().byte().permute(1, 2, 0).numpy())
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _nearest(branch_XHD: Tensor, benchmark: Benchmark, found: EncodedBenchmark) -> list[list[list[Caption]]]:
    """For each picture and branch the nearest captions, best first; one that two perspectives have is the first's."""
    owner = {text: queries.perspective for queries in reversed(benchmark.queries) for text in queries.texts}
    captions = [Caption(text, perspective) for text, perspective in owner.items()]
    vector_VD, texts = branch_XHD.flatten(0, 1), list(owner)
    parts = [vector_VD @ found.texts(texts[i : i + BLOCK]).T for i in range(0, len(texts), BLOCK)]
    index_VK = torch.cat(parts, dim=1).topk(min(NEAREST, len(texts))).indices
    index_XHK = index_VK.unflatten(0, branch_XHD.shape[:2]).tolist()
    return [[[captions[i] for i in index_K] for index_K in index_HK] for index_HK in index_XHK]
