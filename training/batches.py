"""Batches as a pure function of their number.

What is in batch n follows from (seed, n) alone: an order of the images per epoch (`training.shuffle`), and a generator
of its own for each (epoch, image) that draws the captions and the crop. So the loader's whole position is one number,
any number of worker processes gives the same batches in the same order, and ranks share a batch by cutting it: any
number of ranks up to the number of images in it, whose shares differ by one image at most.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pipeline import pictures
from pipeline.clip_tokens import END
from pipeline.errors import ConfigError
from pipeline.shards import ShardReader
from training.bundles import Bundles
from training.config import RunConfig
from training.crops import draw_crop
from training.hard_negatives import hard_negatives
from training.index.piece import Piece
from training.shuffle import Order, make_order
from training.text import TOKEN_BYTES, length_groups, pad
from training.views import DrawnViews, Views

NEGATIVES = 1  # what hard negatives add to the seed of an image's draws
RELEASED_AFTER = 128  # samples: reading one maps up to 1 MB of the index, as neighbours of a page come with it


@dataclass(frozen=True)
class Batch:
    """B images of one rank, with M slots and N hard negatives each, still to be cropped and normalised on the device.

    image_BCSS: uint8 canvases. box_B4: the crop of each as (left, top, width, height), shares of the canvas.
    texts: token ids (T_g, L_g) of each length group; a text that several images share is there, and encoded, once.
    place_P, text_P: caption p belongs at place_P of the flattened (B · M), and is text text_P of all groups in a row;
    hard negatives belong behind these, in the flattened (B · N).
    mask_BM: which slots hold a caption; a row of an unreadable image holds none and so takes no part in any loss.
    views: what teacher and student see, where the recipe distils.
    negative_slot_BN: the slot whose caption each hard negative was made of, -1 where there is none.
    """

    step: int
    image_BCSS: Tensor
    box_B4: Tensor
    texts: tuple[Tensor, ...]
    place_P: Tensor
    text_P: Tensor
    mask_BM: Tensor
    unreadable: tuple[str, ...]
    views: Views | None = None
    negative_slot_BN: Tensor | None = None

    @property
    def pictures(self) -> int:
        """How many pictures the image tower learns from: images, and smaller crops of them."""
        return len(self.image_BCSS) * (1 + (self.views.crop_BK4.shape[1] if self.views else 0))

    @property
    def negatives(self) -> int:
        """Hard negatives of each image, at most."""
        return 0 if self.negative_slot_BN is None else self.negative_slot_BN.shape[1]

    def to(self, device: torch.device) -> "Batch":
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def tokens_BML(self) -> Tensor:
        """The token ids of each caption, with end tokens behind them and where there is no caption."""
        B, M = self.mask_BM.shape
        longest = max(text_TL.shape[1] for text_TL in self.texts)
        token_TL = torch.cat([_ended(text_TL, longest) for text_TL in self.texts])
        flat = token_TL.new_full((B * (M + self.negatives), longest), END)
        return flat.index_copy(0, self.place_P, token_TL[self.text_P])[: B * M].view(B, M, longest)

    def pin_memory(self) -> "Batch":
        """Called by the loader where a GPU waits."""
        return self._map(lambda tensor: tensor.pin_memory())

    def share(self) -> "Batch":
        """In memory that other processes can map. Raises RuntimeError where there is no room for it."""
        return self._map(lambda tensor: tensor.share_memory_())

    def _map(self, move: Any) -> "Batch":
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = move(value)
            elif isinstance(value, Views):
                moved[field.name] = Views(*map(move, value))
            elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                moved[field.name] = tuple(move(tensor) for tensor in value)
        return replace(self, **moved)


@dataclass(frozen=True)
class Share:
    """What a rank makes of the batch of a step: these samples, as they are drawn in this epoch."""

    step: int
    epoch: int
    samples: np.ndarray
    spans: np.ndarray | None  # (B, 2): the part of its shard that each lies in, where that is to be kept


def share_sizes(global_batch: int, ranks: int) -> tuple[int, ...]:
    """How many images of a batch each rank has. Raises ConfigError where there is none for some."""
    if ranks > global_batch:
        raise ConfigError(
            f"train.global_batch is {global_batch}, which leaves no image for some of {ranks} ranks; raise it, or "
            "start fewer ranks"
        )
    ends = [rank * global_batch // ranks for rank in range(ranks + 1)]
    return tuple(end - start for start, end in pairwise(ends))


class BatchMaker:
    """Makes this rank's share of the batch of a step."""

    def __init__(
        self,
        config: RunConfig,
        bundles: Bundles,
        reader: ShardReader,
        *,
        canvas: int,
        context_length: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.bundles, self.reader, self.rank = bundles, reader, rank
        self.share_sizes = share_sizes(config.global_batch, ranks)
        self._config = config
        self._canvas, self._longest = canvas, context_length - 2  # tokens of a text, without start and end
        start = sum(self.share_sizes[:rank])
        self._share = slice(start, start + self.share_sizes[rank])
        self._read_since = 0  # samples, since the index's pages were let go
        self._keeps_spans = self._worth_keeping()

    @cached_property
    def order(self) -> Order:
        """Which samples are in which batch; for whoever deals them out alone."""
        return make_order(self._config, self.bundles, self.reader)

    def __getstate__(self) -> dict[str, Any]:
        """For workers, which are told their samples and need no order."""
        return {name: value for name, value in self.__dict__.items() if name != "order"}

    def _worth_keeping(self) -> bool:
        """Whether blocks are read whole and kept: not where they would be gone before the next picture of theirs."""
        blocks, cache = self.order.blocks, self.reader.cache
        if blocks is None or cache is None:
            return False
        return self.order.window is not None or blocks.bytes <= cache.limit

    def __getitem__(self, step: int) -> Batch:
        return self.make(self.share(step))

    def share(self, step: int) -> Share:
        """What is in a batch. It takes the order of an epoch in memory: one process asks, for all its workers."""
        epoch, samples = self.order.batch(step)
        samples, blocks = samples[self._share], self.order.blocks
        return Share(step, epoch, samples, blocks.spans(samples) if blocks and self._keeps_spans else None)

    def make(self, share: Share) -> Batch:
        """The batch itself: pictures read and decoded, captions drawn. Raises StoreError where a shard is damaged."""
        count, slots, negatives = len(share.samples), len(self._config.slots), self._config.hard_negatives
        image_BCSS = torch.zeros(count, 3, self._canvas, self._canvas, dtype=torch.uint8)
        box_B4 = np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (count, 1))
        mask_BM = np.zeros((count, slots), dtype=bool)
        negative_slot_BN = np.full((count, negatives), -1)
        captions_of: dict[bytes, list[int]] = {}  # the places of each different text, by its tokens
        unreadable = []
        views = DrawnViews(self._config.distillation, count, slots) if self._config.has_teacher else None
        for b, sample in enumerate(share.samples.tolist()):
            piece, row = self._sample(sample)
            rng = np.random.default_rng([self._config.seed, share.epoch, sample])
            drawn = self._draw(piece, row, rng)
            span = None if share.spans is None else share.spans[b]
            data = self._read(piece, row, span)  # a shard that cannot be read ends the run: no picture is at fault
            try:
                canvas, width, height = self._decode(data)
            except Exception as error:  # decoders raise anything on damaged input, and one image must not end the run
                unreadable.append(f"{piece.key[row]}: {error}")
                continue
            image_BCSS[b] = canvas
            box_B4[b] = draw_crop(width, height, self._config.crop_scale, rng)
            if views:
                views.draw(b, width, height, [slot for slot, _ in drawn], rng)
            for slot, tokens in drawn:
                mask_BM[b, slot] = True
                captions_of.setdefault(tokens[: self._longest].tobytes(), []).append(b * slots + slot)
            for n, (slot, tokens) in enumerate(self._negatives(piece, row, drawn, share.epoch, sample)):
                negative_slot_BN[b, n] = slot
                captions_of.setdefault(tokens.tobytes(), []).append(count * slots + b * negatives + n)
        grouped = self._group(captions_of)
        made = image_BCSS, torch.from_numpy(box_B4), *grouped, torch.from_numpy(mask_BM), tuple(unreadable)
        negative_slots = torch.from_numpy(negative_slot_BN) if negatives else None
        return Batch(share.step, *made, views=views.made() if views else None, negative_slot_BN=negative_slots)

    def inspect(self, step: int) -> Iterator[dict[str, Any]]:
        """What is in the whole batch of a step, over all ranks: each image and its captions by slot.

        The index holds tokens, so captions come back in CLIP's small letters.
        """
        from open_clip import SimpleTokenizer

        decode, slots = SimpleTokenizer().decode, [slot.name for slot in self._config.slots]
        epoch, samples = self.order.batch(step)
        for sample in samples.tolist():
            piece, row = self._sample(sample)
            drawn = self._draw(piece, row, np.random.default_rng([self._config.seed, epoch, sample]))
            captions = {slots[m]: decode(tokens.tolist()).strip() for m, tokens in drawn}
            found = {"image_id": piece.image_id[row].as_py(), "key": piece.key[row].as_py(), "captions": captions}
            if self._config.hard_negatives:
                negatives = self._negatives(piece, row, drawn, epoch, sample)
                found["hard_negatives"] = [decode(tokens.tolist()).strip() for _, tokens in negatives]
            yield found

    def _sample(self, number: int) -> tuple[Piece, int]:
        self._read_since += 1
        if self._read_since > RELEASED_AFTER:
            self.bundles.release()
            self._read_since = 1
        return self.bundles.sample(number)

    def _draw(self, piece: Piece, row: int, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
        """Slots and tokens of the captions of an image."""
        captions = piece.captions(row)
        slot, weight, most = piece.slot[captions], piece.weight[captions], self._config.captions_per_image
        drawn = draw_captions(slot, weight, len(self._config.slots), most, rng)
        return [(slot, piece.tokens(captions.start + caption)) for slot, caption in drawn]

    def _negatives(
        self, piece: Piece, row: int, drawn: Sequence[tuple[int, np.ndarray]], epoch: int, sample: int
    ) -> list[tuple[int, np.ndarray]]:
        """Slots and tokens of an image's hard negatives, from random numbers of their own: crops stay as they are."""
        if not self._config.hard_negatives:
            return []
        captions = piece.captions(row)
        of_image = [tuple(piece.tokens(caption).tolist()) for caption in range(captions.start, captions.stop)]
        of_slots = [(slot, tuple(tokens.tolist())) for slot, tokens in drawn]
        rng = np.random.default_rng([self._config.seed, epoch, sample, NEGATIVES])
        made = hard_negatives(of_slots, of_image, self._config.hard_negatives, self._longest, rng)
        return [(slot, np.array(tokens, dtype=np.uint16)) for slot, tokens in made]

    def _group(self, captions_of: Mapping[bytes, list[int]]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        return group_texts(captions_of)

    def _read(self, piece: Piece, row: int, span: np.ndarray | None) -> bytes:
        place = piece.shard_names[piece.shard[row]], int(piece.offset[row]), int(piece.size[row])
        part = None if span is None else (int(span[0]), int(span[1]))
        return self.reader.read(*place, piece.image_id[row].as_py(), part)

    def _decode(self, data: bytes) -> tuple[Tensor, int, int]:
        """The picture on a square canvas, and its own width and height."""
        size = (self._canvas, self._canvas)
        picture, (width, height) = pictures.decode(data, lambda *_: size)
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1), width, height


def _ended(text_TL: Tensor, longest: int) -> Tensor:
    """Texts of so many tokens, with end tokens in place of what is behind their end."""
    is_behind_TL = torch.arange(text_TL.shape[1], device=text_TL.device) > text_TL.argmax(dim=1, keepdim=True)
    return F.pad(text_TL.masked_fill(is_behind_TL, END), (0, longest - text_TL.shape[1]), value=END)


def draw_captions(
    slot_C: np.ndarray, weight_C: np.ndarray, slots: int, most: int | None, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """(slot, caption) pairs of one image's captions: one caption a slot, drawn by weight, of at most `most` slots."""
    uniform, weight = rng.random(slots).tolist(), weight_C.tolist()
    candidates: dict[int, list[int]] = {}
    for caption, m in enumerate(slot_C.tolist()):
        candidates.setdefault(m, []).append(caption)
    drawn = []
    for m in sorted(candidates):
        upto = list(accumulate(weight[caption] for caption in candidates[m]))
        if upto[-1] > 0:
            place = bisect_right(upto, uniform[m] * upto[-1])
            drawn.append((m, candidates[m][min(place, len(upto) - 1)]))
    if most is not None and len(drawn) > most:
        return [drawn[i] for i in np.sort(rng.choice(len(drawn), size=most, replace=False))]
    return drawn


def group_texts(places: Mapping[bytes, list[int]]) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """The different texts in groups of like length, and for each caption its place and its text."""
    different = list(places)
    groups = length_groups([len(text) // TOKEN_BYTES + 2 for text in different])
    in_order = [different[i] for group in groups for i in group]
    place_P = [place for text in in_order for place in places[text]]
    text_P = [number for number, text in enumerate(in_order) for _ in places[text]]
    texts = tuple(pad([different[i] for i in group]) for group in groups)
    return texts, torch.tensor(place_P, dtype=torch.long), torch.tensor(text_P, dtype=torch.long)
