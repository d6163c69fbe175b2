"""Encodes a benchmark once per model: branches of every image, one vector per distinct text.

Copies of a picture are encoded once, and so are texts of the same tokens ("A dog", "a dog"): their scores are equal to
the last digit, whatever batches they would have been in.

Everything measured afterwards reads these arrays. They are cached under the workspace by what they depend on (weights,
preprocessing, benchmark content), so another choice of metrics or intervals costs no encoding.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from pipeline import identity, pictures
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.storage import Location

VERSION = 2  # raised when pictures or texts reach the model otherwise than before
CHECKSUM = identity.ID_LENGTH  # bytes behind a cached array


@dataclass(frozen=True)
class EncodedBenchmark:
    """Embeddings of one benchmark by one model; branches and texts are normalised."""

    branch_NHD: Tensor
    text_TD: Tensor
    row: dict[str, int]  # text: its row in text_TD
    patch_NPD: Tensor | None = None  # float16, where they are asked for

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of these texts, in this order."""
        return self.text_TD[torch.tensor([self.row[text] for text in texts], device=self.text_TD.device)]


@dataclass(frozen=True)
class Needs:
    """What is to be encoded beside the branches of all pictures."""

    texts: Sequence[str] = ()
    patches: bool = False  # of models with a second score

    @classmethod
    def all_of(cls, needs: Iterable[Needs]) -> Needs:
        """What any of these needs; each text once."""
        found = list(needs)
        texts = list(dict.fromkeys(text for need in found for text in need.texts))
        return cls(texts, any(need.patches for need in found))


def features(
    encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location | None, needs: Needs
) -> EncodedBenchmark:
    """Encode a benchmark, or fetch what an earlier evaluation encoded; nothing is kept without a cache."""
    device = pick_device(config.device)
    encoder.model.to(device).eval()
    branch_NHD = _cached(
        cache, [VERSION, encoder.weights, benchmark.digest], lambda: _encode_images(encoder, benchmark, config, device)
    )
    texts = list(needs.texts)
    text_TD = _cached(cache, [VERSION, encoder.weights, texts], lambda: _encode_texts(encoder, texts, config, device))
    row = {text: i for i, text in enumerate(texts)}
    patch_NPD = None
    if needs.patches and encoder.second_score:
        key = [VERSION, encoder.weights, benchmark.digest, "patches"]
        patches = _cached(cache, key, lambda: _encode_patches(encoder, benchmark, config, device))
        patch_NPD = torch.from_numpy(patches).to(device)
    return EncodedBenchmark(
        torch.from_numpy(branch_NHD).to(device), torch.from_numpy(text_TD).to(device), row, patch_NPD
    )


def pick_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _cached(cache: Location | None, key: list[Any], compute: Callable[[], np.ndarray]) -> np.ndarray:
    if cache is None:
        return compute()
    location = cache / f"{identity.digest(key)}.npy"
    if location.exists():
        data = location.read()
        array, checksum = data[:-CHECKSUM], data[-CHECKSUM:]
        if identity.digest(array).encode() == checksum:  # a damaged file is worth no more than none: encode again
            found: np.ndarray = np.load(io.BytesIO(array), allow_pickle=False)
            return found
    made = compute()
    buffer = io.BytesIO()
    np.save(buffer, made)
    location.write(buffer.getvalue() + identity.digest(buffer.getvalue()).encode())
    return made


def _encode_images(encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, device: torch.device) -> np.ndarray:
    def encode(image_BCSS: Tensor) -> Tensor:
        return F.normalize(encoder.model.encode_branches(image_BCSS.to(device)).float(), dim=-1)

    return _of_images(encode, "images", encoder, benchmark, config)


def _encode_patches(
    encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, device: torch.device
) -> np.ndarray:
    """Patches of every image in half precision: they are what the second score reads, and many."""

    def encode(image_BCSS: Tensor) -> Tensor:
        patch_BPD: Tensor = encoder.model.encode_patches(image_BCSS.to(device), normalize=False)
        return patch_BPD.half()

    return _of_images(encode, "patches", encoder, benchmark, config)


@torch.inference_mode()
def _of_images(
    encode: Callable[[Tensor], Tensor], what: str, encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig
) -> np.ndarray:
    """What `encode` makes of each image; of copies it is the same, made once."""
    different, place_N = np.unique(benchmark.original_N, return_inverse=True)
    progress = Progress(f"{encoder.run}: {what} of {benchmark.name}", len(different), "images")
    parts = []
    for image_BCSS in _image_batches(encoder, benchmark, different.tolist(), config):
        parts.append(encode(image_BCSS).cpu())
        progress.update(len(image_BCSS))
    progress.close()
    return _finite(torch.cat(parts), encoder, what)[place_N]


@torch.inference_mode()
def _encode_texts(encoder: Encoder, texts: list[str], config: EvaluateConfig, device: torch.device) -> np.ndarray:
    """Shortest texts first, each batch as wide as its longest: padding is most of a text tower's work."""
    text_TL, place_T = torch.unique(encoder.tokenizer(texts), dim=0, return_inverse=True)
    length_T = torch.full((len(text_TL),), text_TL.shape[1])
    if encoder.cuts_texts:  # up to the last token; what follows is padding
        length_T = (text_TL != 0).cumsum(dim=1).argmax(dim=1) + 1
    order_T = length_T.argsort(stable=True)
    progress = Progress(f"{encoder.run}: texts", len(text_TL), "texts")
    parts = []
    for index_B in order_T.split(config.text_batch):
        batch_BL = text_TL[index_B, : int(length_T[index_B].max())].to(device)
        parts.append(F.normalize(encoder.model.encode_text(batch_BL).float(), dim=-1).cpu())
        progress.update(len(index_B))
    progress.close()
    return _finite(torch.cat(parts)[order_T.argsort()][place_T], encoder, "texts")


def _image_batches(
    encoder: Encoder, benchmark: Benchmark, images: Sequence[int], config: EvaluateConfig
) -> Iterator[Tensor]:
    """Preprocessed batches (B, 3, S, S); the next one is decoded by threads while the model works on this one."""

    def load(index: int) -> Tensor:
        location = benchmark.image(index)
        data = location.read()
        try:
            return encoder.preprocess(pictures.decode(data)[0])
        except Exception as error:  # decoders raise anything on damaged input
            raise InputError(f"the benchmark picture {location} cannot be decoded ({error}); replace it") from error

    with ThreadPoolExecutor(config.workers) as pool:
        waiting: list[Future[Tensor]] = []
        for start in range(0, len(images), config.image_batch):
            submitted = [pool.submit(load, index) for index in images[start : start + config.image_batch]]
            ready, waiting = waiting, submitted
            if ready:
                yield torch.stack([future.result() for future in ready])
        yield torch.stack([future.result() for future in waiting])


def _finite(embedding: Tensor, encoder: Encoder, what: str) -> np.ndarray:
    if not torch.isfinite(embedding).all():
        raise InputError(f"the model of run {encoder.run!r} gives embeddings of {what} that are not finite numbers")
    array: np.ndarray = embedding.numpy()
    return array
