"""Encodes a benchmark once per model: branches of every image, one vector per distinct text.

Copies of a picture are encoded once, and so are texts of the same tokens ("A dog", "a dog"): their scores are equal to
the last digit, whatever batches they would have been in.

Everything measured afterwards reads these arrays. They are kept under the workspace by what they depend on (weights,
preprocessing, benchmark content), in shards (`evaluation.feature_store`): another choice of metrics or intervals
costs no encoding, and a run that is killed goes on after the last whole shard. Beside the arrays themselves, memory
holds a shard, the batch that is encoded and the one that is decoded.
"""

from __future__ import annotations

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
from evaluation.feature_store import Assembled, FeatureStore
from pipeline import identity, pictures
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.storage import Location

VERSION = 2  # raised when pictures or texts reach the model otherwise than before


@dataclass(frozen=True)
class EncodedBenchmark:
    """Embeddings of one benchmark by one model, normalised (patches are not), in the precision they are kept in."""

    branch_NHD: Tensor
    text_TD: Tensor
    row: dict[str, int]  # text: its row in text_TD
    patch_NPD: Tensor | None = None  # float16, where they are asked for

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of these texts, in this order."""
        return self.text_TD[torch.tensor([self.row[text] for text in texts], device=self.text_TD.device)].float()


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
    found = _Work(encoder, config, cache, device).all_of(benchmark, needs)
    branch_NHD, text_TD, patch_NPD = (None if part is None else torch.from_numpy(part).to(device) for part in found)
    assert branch_NHD is not None
    assert text_TD is not None
    return EncodedBenchmark(branch_NHD, text_TD, {text: i for i, text in enumerate(needs.texts)}, patch_NPD)


@dataclass(frozen=True)
class Share:
    """Every `of`-th shard, from `rank` on."""

    rank: int
    of: int


def encode_share(
    encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location, needs: Needs, share: Share
) -> None:
    """Encode some shards of what `features` would, and leave them in the cache."""
    device = pick_device(config.device)
    encoder.model.to(device).eval()
    _Work(encoder, config, cache, device, share).all_of(benchmark, needs)


def missing_shards(encoder: Encoder, benchmark: Benchmark, config: EvaluateConfig, cache: Location) -> int:
    """How many shards of the benchmark's pictures are not in the cache yet."""
    store = _Work(encoder, config, cache, torch.device("cpu")).store_of_images(benchmark, [])
    return sum(not store.has(shard) for shard in store.shards())


def pick_device(device: str) -> torch.device:
    """`auto` is the GPU where there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


Encode = Callable[[Tensor], Tensor]  # a batch on the device to its features


@dataclass(frozen=True)
class _Work:
    """Encoding by one model: what is there is read, what is missing is encoded and kept, shard by shard."""

    encoder: Encoder
    config: EvaluateConfig
    cache: Location | None
    device: torch.device
    share: Share | None = None  # the only shards to encode; nothing comes out then

    def all_of(self, benchmark: Benchmark, needs: Needs) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Branches, texts, and patches where they are asked for."""
        branch_NHD = self.of_images(benchmark, "images", [], self.branches)
        text_TD = self.of_texts(list(needs.texts))
        if not needs.patches or not self.encoder.second_score:
            return branch_NHD, text_TD, None
        return branch_NHD, text_TD, self.of_images(benchmark, "patches", ["patches"], self.patches)

    def branches(self, image_BCSS: Tensor) -> Tensor:
        return self._kept(F.normalize(self.encoder.model.encode_branches(image_BCSS).float(), dim=-1))

    def patches(self, image_BCSS: Tensor) -> Tensor:
        """In half precision: they are what the second score reads, and many."""
        patch_BPD: Tensor = self.encoder.model.encode_patches(image_BCSS, normalize=False)
        return patch_BPD.half()

    def texts(self, text_TL: Tensor) -> Tensor:
        return self._kept(F.normalize(self.encoder.model.encode_text(text_TL).float(), dim=-1))

    def _kept(self, feature_BD: Tensor) -> Tensor:
        return feature_BD.half() if self.config.feature_precision == "float16" else feature_BD

    def of_images(self, benchmark: Benchmark, what: str, key: list[str], encode: Encode) -> np.ndarray:
        """What `encode` makes of each image; of copies it is the same, made once."""
        different, place_N = np.unique(benchmark.original_N, return_inverse=True)
        store = self.store_of_images(benchmark, key)
        label = f"{self.encoder.run}: {what} of {benchmark.name}"

        def batches(rows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
            chosen = [different[list(row)].tolist() for row in rows]
            return _image_batches(self.encoder, benchmark, chosen, self.config)

        found = self._fill(store, (label, "images"), self.config.image_batch, batches, encode)
        return found if len(different) == len(place_N) else found[place_N]

    def store_of_images(self, benchmark: Benchmark, key: list[str]) -> FeatureStore:
        """Where features of the benchmark's different pictures are kept."""
        original_N = benchmark.original_N
        copies = np.flatnonzero(original_N != np.arange(len(original_N))).tolist()
        return self._store([benchmark.shown, copies, *key], len(original_N) - len(copies))

    def of_texts(self, texts: list[str]) -> np.ndarray:
        """Shortest texts first, each batch as wide as its longest: padding is most of a text tower's work."""
        if not texts:
            return np.zeros((0, 0), dtype=np.float32)
        text_TL, place_T = torch.unique(self.encoder.tokenizer(texts), dim=0, return_inverse=True)
        length_T = torch.full((len(text_TL),), text_TL.shape[1])
        if self.encoder.cuts_texts:  # up to the last token; what follows is padding
            length_T = (text_TL != 0).cumsum(dim=1).argmax(dim=1) + 1
        order_T = length_T.argsort(stable=True)

        def batches(rows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
            for row in rows:
                index_B = order_T[torch.tensor(row)]
                yield text_TL[index_B, : int(length_T[index_B].max())]

        store = self._store([texts], len(text_TL))
        label = (f"{self.encoder.run}: texts", "texts")
        found = self._fill(store, label, self.config.text_batch, batches, self.texts)
        return found[order_T.argsort()[place_T].numpy()]

    def _store(self, key: list[Any], rows: int) -> FeatureStore:
        precision = [] if self.config.feature_precision == "float32" else [self.config.feature_precision]
        name = identity.digest([VERSION, self.encoder.weights, *key, *precision])
        return FeatureStore(self.cache / name if self.cache else None, rows, self.config.feature_shard)

    @torch.inference_mode()
    def _fill(
        self,
        store: FeatureStore,
        label: tuple[str, str],
        size: int,
        batches: Callable[[Sequence[Sequence[int]]], Iterator[Tensor]],
        encode: Encode,
    ) -> np.ndarray:
        """All rows of a store. No batch holds rows of two shards: a row's batch does not depend on what is there."""
        assembled, missing = Assembled(store.rows), list[range]()
        shards = list(store.shards())
        if self.share is not None:
            shards = shards[self.share.rank :: self.share.of]
        for shard in shards:
            if (kept := store.read(shard)) is None:
                missing.append(shard)
            else:
                assembled.put(shard, kept)
        what, unit = label
        if self.share is not None:  # each process says how far it has come with its own shards
            what += f", process {self.share.rank + 1} of {self.share.of},"
        left, total = sum(map(len, missing)), sum(map(len, shards))
        progress = Progress(what, total, unit, done=total - left) if left else None
        ready = batches([shard[i : i + size] for shard in missing for i in range(0, len(shard), size)])
        for shard in missing:
            parts = list[Tensor]()
            while sum(map(len, parts)) < len(shard):
                parts.append(encode(next(ready).to(self.device)).cpu())
                if progress:
                    progress.update(len(parts[-1]))
            made = _finite(torch.cat(parts), self.encoder, unit)
            store.write(shard, made)
            assembled.put(shard, made)
        if progress:
            progress.close()
        return assembled.array() if self.share is None else np.zeros((store.rows, 0), dtype=np.float32)


def _image_batches(
    encoder: Encoder, benchmark: Benchmark, batches: Sequence[Sequence[int]], config: EvaluateConfig
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
        for batch in batches:
            submitted = [pool.submit(load, index) for index in batch]
            ready, waiting = waiting, submitted
            if ready:
                yield torch.stack([future.result() for future in ready])
        if waiting:
            yield torch.stack([future.result() for future in waiting])


def _finite(embedding: Tensor, encoder: Encoder, what: str) -> np.ndarray:
    if not torch.isfinite(embedding).all():
        raise InputError(f"the model of run {encoder.run!r} gives embeddings of {what} that are not finite numbers")
    array: np.ndarray = embedding.numpy()
    return array
