"""How well captions fit their picture: the cosine of image and text vectors of a dual encoder (CLIP score).

Pictures are read from the shard's tar by offset, and each is encoded once a pass, however many captions it has. A
score is stored under image and text, so it is computed once, whichever caption of whatever run says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from captioning.asking.questions import decode
from captioning.curate.draft import Draft
from captioning.curate.measures.config import ScorerConfig
from captioning.curate.measures.dual_encoder import LoadCheckpoint, batches, load_encoder
from captioning.curate.measures.store import MeasureStore
from pipeline.errors import StoreError
from pipeline.identity import digest
from pipeline.progress import Progress
from pipeline.shards import ShardReader
from pipeline.storage import Location

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "image_text"
SCORE = "image_text"  # what verdicts call it
READS = ("shard", "image_id")  # columns of the captions table
MAX_PIXELS = 1 << 24  # a guard for memory only; the model's own preprocessing scales down
PIECE = 1024  # images between two lines of progress


class Pictures(Protocol):
    """Where a shard's images are found."""

    def images_of(self, shard: str) -> pa.Table:
        """The images table of the shard."""

    def tar_of(self, shard: str) -> str:
        """URI of its tar."""


@dataclass(frozen=True)
class ImageText:
    """A `Measured` of scores. Plain data, as it is sent to other processes; the model loads with the first new score.

    `digest` is that of the model (`scorer_digest`), `folder` that of all measures. A score is NaN where the picture
    cannot be decoded any more.
    """

    config: ScorerConfig
    digest: str
    pictures: Pictures
    folder: Location
    load_checkpoint: LoadCheckpoint | None = None

    def __call__(self, draft: Draft, rows: Sequence[int]) -> np.ndarray:
        """Scores of these rows, (rows,), -1 to 1, of the texts as they are now."""
        if not rows:
            return np.zeros(0, np.float32)
        shard = str(draft.columns["shard"][rows[0]])
        pairs = [(draft.columns["image_id"][row], draft.texts[row]) for row in rows]
        ids = [f"{image}-{digest(text)}" for image, text in pairs]
        store = MeasureStore(self.folder, NAME, self.digest, width=1)
        return store.values(shard, ids, lambda new: self._scores(shard, [pairs[i] for i in new])[:, None])[:, 0]

    def _scores(self, shard: str, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Scores of (image_id, text), (pairs,). Every image and every text is encoded once."""
        encoder, load = load_encoder(self.config, self.digest, self.load_checkpoint), self._loader(shard)
        texts = {text: place for place, text in enumerate(dict.fromkeys(text for _, text in pairs))}
        text_TD = encoder.encode_texts(list(texts))
        by_image: dict[str, list[int]] = {}
        for position, (image, _) in enumerate(pairs):
            by_image.setdefault(image, []).append(position)
        scores = np.zeros(len(pairs), np.float32)
        progress = Progress(f"image-text scores of {shard}", len(by_image), "images")
        for images in batches(by_image, PIECE):
            for image, image_D in zip(images, encoder.encode_images(images, load), strict=True):
                own = by_image[image]
                scores[own] = text_TD[[texts[pairs[position][1]] for position in own]] @ image_D
            progress.update(len(images))
        progress.close()
        return scores

    def _loader(self, shard: str) -> Callable[[str], Image | None]:
        """What reads a picture of the shard by image_id; None if it cannot be decoded."""
        table = self.pictures.images_of(shard).select(["image_id", "offset", "size"])
        places = {row["image_id"]: (row["offset"], row["size"]) for row in table.to_pylist()}
        reader = ShardReader({shard: self.pictures.tar_of(shard)})

        def load(image: str) -> Image | None:
            if image not in places:
                raise StoreError(
                    f"shard {shard!r} has captions of the image {image}, which is not in its images table; the "
                    "captions belong to other images: run holism caption again"
                )
            data = reader.read(shard, *places[image], image)
            try:
                return decode(data, MAX_PIXELS)
            except Exception:  # decoders raise anything on broken bytes
                return None

        return load
