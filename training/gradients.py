"""The loss of a batch and its gradients, at once or by micro-batches.

A contrastive loss needs all embeddings of the global batch at once, so plain accumulation would compute another loss.
With `micro_batch` the embeddings are made without graph, a micro-batch at a time; the loss of the whole batch is
computed once, which gives its gradient for each embedding; then each micro-batch is encoded again, with graph, and the
gradients of its embeddings go back through it (gradient caching, Gao et al. 2021). Towers have nothing random in them,
so both passes see the same embeddings, and the gradients are the large batch's. The price is a second forward pass.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from training.augment import crop_and_normalise
from training.batches import Batch, share_sizes
from training.config import RunConfig
from training.losses import Features, Loss, gather, weighted_sum
from training.losses.student_views import student_views
from training.model import Encoded, HolisticCLIP
from training.ranks import Ranks
from training.views import Views

DUMMY_TEXT = [[49406, 49407]]  # a start and an end token


@dataclass(frozen=True)
class _Piece:
    """Some of a batch's images (or embeddings made before) with V boxes each, and some texts of each length group."""

    image_BCSS: Tensor
    box_BV4: Tensor
    texts: tuple[Tensor, ...]


class Gradients:
    """Maps a batch to its features and its loss, and adds the gradients to the parameters' own, means over ranks.

    `teacher` is what recipes with the term distillation learn from beside the batch.
    """

    def __init__(
        self, model: HolisticCLIP, config: RunConfig, ranks: Ranks, teacher: HolisticCLIP | None = None
    ) -> None:
        self._model, self._config, self._ranks, self._teacher = model, config, ranks, teacher
        self._shares = share_sizes(config.global_batch, ranks.count)
        share = max(self._shares)  # the largest: ranks must not differ in what they choose
        self._pieces = math.ceil(share / (config.micro_batch or share))
        self._towers: nn.Module = model
        if ranks.count > 1 and self._pieces == 1:
            devices = [ranks.device] if ranks.device.type == "cuda" else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # newer versions have another name for it
                self._towers = nn.parallel.DistributedDataParallel(model, devices, broadcast_buffers=False)

    def __call__(self, batch: Batch) -> tuple[Features, Loss]:
        # A batch without a single caption still passes the text tower: every rank must have gradients for all weights.
        texts = batch.texts or (torch.tensor(DUMMY_TEXT, device=batch.image_BCSS.device),)
        batch = replace(batch, texts=texts)
        return self._at_once(batch) if self._pieces == 1 else self._by_micro_batches(batch)

    def _at_once(self, batch: Batch) -> tuple[Features, Loss]:
        (piece,) = _pieces(batch, _boxes(batch), 1)
        features, loss = self._loss(self._encode(self._towers, piece), batch)
        loss.total.backward()
        return features, loss

    def _by_micro_batches(self, batch: Batch) -> tuple[Features, Loss]:
        """DDP reduces gradients in one backward pass, and here are several: they are averaged after the last."""
        pieces = list(_pieces(batch, _boxes(batch), self._pieces))
        with torch.no_grad():
            cached = [_leaves(self._encode(self._towers, piece)) for piece in pieces]
        features, loss = self._loss(_joined(cached, self._model.logit_scale.exp()), batch)
        loss.total.backward()
        for piece, leaves in zip(pieces, cached, strict=True):
            with_graph = zip(_tensors(self._encode(self._towers, piece)), _tensors(leaves), strict=True)
            back = [(made, leaf.grad) for made, leaf in with_graph if made.requires_grad and leaf.grad is not None]
            if back:
                torch.autograd.backward(*zip(*back, strict=True))
        self._ranks.average_gradients(self._model.parameters())
        return features, loss

    def _encode(self, towers: nn.Module, piece: _Piece) -> Encoded:
        """The views of each image are rows that follow each other."""
        image_XCSS = piece.image_BCSS
        if not self._config.cache_features:
            size, colours = self._model.visual.image_size[0], (self._config.image_mean, self._config.image_std)
            boxes = piece.box_BV4.unbind(dim=1)
            crops = [crop_and_normalise(piece.image_BCSS, box_B4, size, *colours) for box_B4 in boxes]
            image_XCSS = torch.stack(crops, dim=1).flatten(0, 1)
        with self._autocast():
            encoded: Encoded = towers(image_XCSS, piece.texts)
        return encoded

    def _loss(self, encoded: Encoded, batch: Batch) -> tuple[Features, Loss]:
        own_BHD, *crops = encoded.branches_BHD.unflatten(0, (len(batch.mask_BM), -1)).unbind(dim=1)
        with torch.autocast(self._ranks.device.type, enabled=False):
            text_BMD, negative_BND = _in_slots(encoded, batch)
            features = gather(own_BHD, text_BMD, batch.mask_BM, encoded.scale, self._shares)
            if batch.negative_slot_BN is not None:
                features = features.with_negatives(negative_BND, batch.negative_slot_BN)
            if encoded.patch_BND is not None:
                patch_BND = encoded.patch_BND.unflatten(0, (len(batch.mask_BM), -1))[:, 0]
                features = replace(features, conditioned=partial(self._conditioned, patch_BND))
            if self._model.token_head is not None:
                features = replace(features, token_BML=batch.tokens_BML(), token_loss=self._token_loss)
            if batch.views:
                views = student_views(features, crops, batch.views.part_BVM, self._shares)
                features = replace(features, views=views, teacher=self._taught(batch, batch.views))
            return features, weighted_sum(features, self._config.losses)

    @torch.no_grad()
    def _taught(self, batch: Batch, views: Views) -> Features:
        """What the teacher makes of the whole pictures and of all captions."""
        assert self._teacher is not None
        pieces = _pieces(batch, views.whole_B4[:, None], self._pieces)
        scale = self._teacher.logit_scale.exp() / self._config.distillation.temperature
        encoded = _joined([self._encode(self._teacher, piece) for piece in pieces], scale)
        text_BMD, _ = _in_slots(encoded, batch)
        return gather(encoded.branches_BHD, text_BMD, batch.mask_BM, scale, self._shares)

    def _conditioned(self, patch_BND: Tensor, text_XD: Tensor, which_BT: Tensor) -> Tensor:
        assert self._model.text_pooling is not None
        with self._autocast():
            cosines_BT: Tensor = self._model.text_pooling(patch_BND, text_XD, which_BT)
        return cosines_BT.float()

    def _token_loss(self, vector_XD: Tensor, token_XL: Tensor) -> Tensor:
        assert self._model.token_head is not None
        with self._autocast():
            loss_X: Tensor = self._model.token_head(vector_XD, token_XL)
        return loss_X.float()

    def _autocast(self) -> AbstractContextManager[None]:
        wanted = self._config.precision == "bf16"
        return torch.autocast(self._ranks.device.type, dtype=torch.bfloat16, enabled=wanted)


def _boxes(batch: Batch) -> Tensor:
    """What the student sees of each image (B, V, 4): the step's own crop, then smaller ones."""
    own_B14 = batch.box_B4[:, None]
    return own_B14 if batch.views is None else torch.cat([own_B14, batch.views.crop_BK4], dim=1)


def _in_slots(encoded: Encoded, batch: Batch) -> tuple[Tensor, Tensor]:
    """The captions of each image in their slots (B, M, D), and its hard negatives (B, N, D)."""
    (B, M), N = batch.mask_BM.shape, batch.negatives
    text_TD = torch.cat(encoded.texts)
    flat = text_TD.new_zeros(B * (M + N), text_TD.shape[1]).index_copy(0, batch.place_P, text_TD[batch.text_P])
    return flat[: B * M].unflatten(0, (B, M)), flat[B * M :].view(B, N, text_TD.shape[1])


def _pieces(batch: Batch, box_BV4: Tensor, count: int) -> Iterator[_Piece]:
    """A batch in `count` pieces of like size; a piece may have no text of a small length group."""
    groups = [text_TL.tensor_split(count) for text_TL in batch.texts]
    images = zip(batch.image_BCSS.tensor_split(count), box_BV4.tensor_split(count), strict=True)
    for place, (image_BCSS, box) in enumerate(images):
        yield _Piece(image_BCSS, box, tuple(group[place] for group in groups))


def _leaves(encoded: Encoded) -> Encoded:
    """The same numbers, of which autograd keeps the gradients."""

    def leaf(made: Tensor) -> Tensor:
        return made.detach().requires_grad_()

    patch_BND = None if encoded.patch_BND is None else leaf(encoded.patch_BND)
    return Encoded(leaf(encoded.branches_BHD), [leaf(text) for text in encoded.texts], encoded.scale, patch_BND)


def _tensors(encoded: Encoded) -> list[Tensor]:
    """What gradients go back through; the scale's own comes with the loss."""
    patch = [] if encoded.patch_BND is None else [encoded.patch_BND]
    return [encoded.branches_BHD, *encoded.texts, *patch]


def _joined(pieces: list[Encoded], scale: Tensor) -> Encoded:
    """What the batch would have given whole."""
    groups = zip(*(piece.texts for piece in pieces), strict=True)
    patches = [piece.patch_BND for piece in pieces if piece.patch_BND is not None]
    return Encoded(
        torch.cat([piece.branches_BHD for piece in pieces]),
        [torch.cat(group) for group in groups],
        scale,
        torch.cat(patches) if patches else None,
    )
