"""Embeddings of a frozen image tower, made once and kept on this machine (locked-image tuning, `cache_features`).

Where nothing of the tower is trained and no crop is random, a picture's embedding is the same in every epoch. They lie
in segments: files of picture ids and embeddings, named by their own digest, in a folder for the tower's weights and
what pictures go through before them. So another run of the same tower, more pictures, or a start after a kill makes
what is missing alone, and a damaged segment is made again.
"""

import io
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.identity import ID_LENGTH, digest
from pipeline.messages import say
from pipeline.progress import Progress
from pipeline.shards import ShardReader
from pipeline.storage import Location
from training.augment import crop_and_normalise
from training.batches import Batch, BatchMaker
from training.bundles import Bundles
from training.config import RunConfig
from training.crops import draw_crop
from training.model import HolisticCLIP
from training.ranks import Ranks

VERSION = 1  # raised when pictures reach the tower otherwise than before
SEGMENT = 8192  # pictures of one file, at most
AT_ONCE = 64  # pictures that are encoded together
SUFFIX = ".npy"


@dataclass(frozen=True)
class FrozenEmbeddings:
    """The embedding of each sample's picture: row row_S[s] of segment segment_S[s], mapped into memory."""

    segments: tuple[np.ndarray, ...]
    segment_S: np.ndarray
    row_S: np.ndarray

    def of(self, samples: np.ndarray) -> Tensor:
        """(B, D) float32; rows of nan for pictures that do not decode."""
        places = zip(self.segment_S[samples].tolist(), self.row_S[samples].tolist(), strict=True)
        return torch.from_numpy(np.stack([self.segments[segment][row]["embedding"] for segment, row in places]))

    def fill(self, batch: Batch, samples: np.ndarray, bundles: Bundles) -> Batch:
        """The batch with embeddings (B, 1, D) in place of its pictures; those that do not decode have no captions."""
        embedding_BD = self.of(samples)
        decodes_B = embedding_BD.isfinite().all(dim=1)
        return replace(
            batch,
            image_BCSS=embedding_BD.nan_to_num(0.0)[:, None],
            mask_BM=batch.mask_BM & decodes_B[:, None],
            unreadable=tuple(f"{bundles.key(s)}: does not decode" for s in samples[~decodes_B.numpy()].tolist()),
        )


class WithoutPictures(BatchMaker):
    """Batches whose pictures nobody reads, as their embeddings are there: each is one black pixel."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "canvas": 1})

    def _read(self, *_: Any) -> bytes:
        return b""

    def _decode(self, _: bytes) -> tuple[Tensor, int, int]:
        return torch.zeros(3, 1, 1, dtype=torch.uint8), 1, 1


class Embedder:
    """Makes the embeddings of a run's pictures that this machine lacks. `batches` is how the run would see them."""

    def __init__(
        self,
        name: str,
        model: HolisticCLIP,
        config: RunConfig,
        reader: ShardReader,
        batches: BatchMaker,
        canvas: int,
        ranks: Ranks,
    ) -> None:
        self._name, self._model, self._config, self._ranks = name, model, config, ranks
        self._bundles, self._reader, self._decode, self._canvas = batches.bundles, reader, batches._decode, canvas

    def embeddings(self, folder: Location) -> FrozenEmbeddings:
        """Of all samples. Ranks of one machine share the work, and each waits until all of it is done.

        Raises StoreError where a shard is damaged.
        """
        store = Segments(folder / _key(self._model, self._config, self._canvas))
        id_S = _image_ids(self._bundles)
        local, count = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        missing = np.flatnonzero(store.find(id_S).segment_S < 0)
        own = missing[missing % count == local]
        if len(missing) and self._ranks.is_first:
            say(f"train {self._name}: {len(missing):,} of {len(id_S):,} pictures have no embedding in {store.place}")
        self._make(own, id_S, store)
        while (embeddings := store.find(id_S)).segment_S.min() < 0:
            time.sleep(1)
        return embeddings

    def _make(self, samples: np.ndarray, id_S: np.ndarray, store: "Segments") -> None:
        progress = Progress(f"train {self._name}: embeddings", len(samples), "images") if len(samples) else None
        with ThreadPoolExecutor(max(1, self._config.workers)) as pool:
            for start in range(0, len(samples), SEGMENT):
                of_segment = samples[start : start + SEGMENT]
                parts = []
                for embedding_BD in self._encoded(of_segment.tolist(), pool):
                    parts.append(embedding_BD.numpy())
                    if progress:
                        progress.update(len(embedding_BD))
                store.add(id_S[of_segment], np.concatenate(parts))
        if progress:
            progress.close()

    @torch.no_grad()
    def _encoded(self, samples: Sequence[int], pool: ThreadPoolExecutor) -> Iterator[Tensor]:
        """Embeddings (B, D), nan of pictures that do not decode; threads decode the next ones meanwhile."""
        groups = [samples[start : start + AT_ONCE] for start in range(0, len(samples), AT_ONCE)]
        ahead = pool.map(self._picture, groups[0])
        for after in [*groups[1:], []]:
            pictures, ahead = list(ahead), pool.map(self._picture, after)
            canvas_BCSS = torch.stack([canvas for canvas, _ in pictures]).to(self._ranks.device)
            box_B4 = torch.tensor([box for _, box in pictures], device=self._ranks.device)
            size, colours = self._model.visual.image_size[0], (self._config.image_mean, self._config.image_std)
            wanted = self._config.precision == "bf16"
            with torch.autocast(self._ranks.device.type, dtype=torch.bfloat16, enabled=wanted):
                branches_BHD = self._model.encode_branches(crop_and_normalise(canvas_BCSS, box_B4, size, *colours))
            yield branches_BHD[:, 0].float().masked_fill(box_B4[:, 2:3] == 0, torch.nan).cpu()

    def _picture(self, sample: int) -> tuple[Tensor, tuple[float, float, float, float]]:
        """The canvas and the one crop that there is; an empty one where the picture does not decode."""
        piece, row = self._bundles.sample(sample)
        shard = piece.shard_names[piece.shard[row]]
        data = self._reader.read(shard, int(piece.offset[row]), int(piece.size[row]), piece.image_id[row].as_py())
        try:
            canvas, width, height = self._decode(data)
        except Exception:  # decoders raise anything on damaged input, and one image must not end the run
            return torch.zeros(3, self._canvas, self._canvas, dtype=torch.uint8), (0.0, 0.0, 0.0, 0.0)
        return canvas, draw_crop(width, height, self._config.crop_scale, np.random.default_rng(0))


class Segments:
    """The segments in a folder. Each is checked once, when it is first seen; a damaged one is named and removed."""

    def __init__(self, place: Location) -> None:
        self.place = place
        self._known: dict[str, np.ndarray] = {}
        place.make_folder()

    def find(self, id_S: np.ndarray) -> FrozenEmbeddings:
        """Where the embedding of each picture is: in segment -1 where nowhere."""
        for file, _ in self.place.files(SUFFIX):
            if file.name not in self._known and (segment := self._opened(file)) is not None:
                self._known[file.name] = segment
        segments = tuple(self._known.values())
        segment_S, row_S = np.full(len(id_S), -1, np.int32), np.zeros(len(id_S), np.int32)
        in_order = np.argsort(id_S)
        for number, segment in enumerate(segments):
            place_R = np.searchsorted(id_S, segment["id"], sorter=in_order).clip(max=len(id_S) - 1)
            wanted_R = id_S[in_order[place_R]] == segment["id"]
            segment_S[in_order[place_R[wanted_R]]] = number
            row_S[in_order[place_R[wanted_R]]] = np.flatnonzero(wanted_R)
        return FrozenEmbeddings(segments, segment_S, row_S)

    def add(self, id_R: np.ndarray, embedding_RD: np.ndarray) -> None:
        """A new segment, in one atomic step."""
        rows = np.empty(len(id_R), [("id", id_R.dtype), ("embedding", np.float32, embedding_RD.shape[1:])])
        rows["id"], rows["embedding"] = id_R, embedding_RD
        buffer = io.BytesIO()
        np.save(buffer, rows)
        (self.place / f"{digest(buffer.getvalue())}{SUFFIX}").write(buffer.getvalue())

    def _opened(self, file: Location) -> np.ndarray | None:
        if digest(file.read()) == file.name.removesuffix(SUFFIX):
            mapped: np.ndarray = np.load(str(file), mmap_mode="r")
            return mapped
        say(f"train: warning: {file} is damaged and is made again", warning=True)
        file.remove()
        return None


def _key(model: HolisticCLIP, config: RunConfig, canvas: int) -> str:
    """What embeddings depend on beside the picture: the tower's weights, and what a picture goes through before it."""
    weights = {name: digest(_bytes(value)) for name, value in model.visual.state_dict().items()}
    seen = [canvas, model.visual.image_size[0], config.image_mean, config.image_std, config.crop_scale]
    return digest({"version": VERSION, "weights": weights, "seen": seen, "precision": config.precision})


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _image_ids(bundles: Bundles) -> np.ndarray:
    """Of all samples, as bytes of one length, which numpy sorts."""
    id_S = np.empty(len(bundles), f"S{ID_LENGTH}")
    for number, piece in enumerate(bundles.pieces):
        of_piece = np.flatnonzero(bundles.piece_S == number)
        id_S[of_piece] = piece.image_id.to_numpy(zero_copy_only=False).astype(id_S.dtype)[bundles.row_S[of_piece]]
    return id_S
