"""A model for MTEB (its image tasks are MIEB): a Holism model by its served vector, and whatever else can be measured.

mteb.evaluate(evaluation.mteb_model.MtebModel("exports/first"), mteb.get_tasks(tasks=["Flickr30kT2IRetrieval"]))
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from evaluation import models, readouts
from evaluation.features import pick_device


class MtebModel:
    """MTEB's `EncoderProtocol`; `model_name` is what `evaluate.models` takes: a folder, open_clip:MODEL:TAG, …"""

    def __init__(self, model_name: str, revision: str | None = None, *, device: str | None = None, **_: Any) -> None:
        self._encoder = models.load(model_name, model_name)
        self._device = pick_device(device or "auto")
        self._encoder.model.to(self._device).eval()
        self.revision = revision or self._encoder.weights

    @torch.inference_mode()
    def encode(self, inputs: Any, **_: Any) -> Tensor:
        """Unit vectors (N, D) of MTEB's batches; of rows with a picture and a text, the sum of both."""
        kinds = {"image": self._images, "text": self._texts}
        asked = [kind for kind in kinds if kind in inputs.dataset.features]
        if not asked:
            raise ValueError(f"expected pictures or texts, found {', '.join(inputs.dataset.features)}")
        parts = [torch.stack([kinds[kind](batch[kind]) for kind in asked]).sum(dim=0) for batch in inputs]
        return F.normalize(torch.cat(parts), dim=-1).cpu()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (N, M) of any two."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines (N,) of each two."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(dim=-1)

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB files results under."""
        name = f"holism/{self._encoder.run.strip('/').replace('/', '_')}"
        about = {"name": name, "revision": self.revision, "modalities": ["image", "text"]}
        return import_module("mteb.models").ModelMeta.create_empty(about)

    def _images(self, images: Sequence[Any]) -> Tensor:
        image_BCSS = torch.stack([self._encoder.preprocess(image) for image in images])
        branch_BHD = F.normalize(self._encoder.model.encode_branches(image_BCSS.to(self._device)).float(), dim=-1)
        return readouts.vectors("mean", branch_BHD, self._encoder.branches)[:, 0]

    def _texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self._encoder.tokenizer(list(texts)).to(self._device)
        return F.normalize(self._encoder.model.encode_text(tokens).float(), dim=-1)
