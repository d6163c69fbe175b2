"""A model of one image vector, as evaluation sees it."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor, nn

from pipeline.pictures import upright_rgb

BRANCH = ("image",)  # the name of the only branch
Encode = Callable[[Tensor], Tensor]


class OneVector(nn.Module):
    """`images` and `texts` are how the library that the model comes from encodes them, (B, D) each."""

    def __init__(self, model: nn.Module, images: Encode, texts: Encode) -> None:
        super().__init__()
        self.model = model
        self._images, self._texts = images, texts

    def encode_branches(self, image_BCSS: Tensor) -> Tensor:
        """Image vectors, (B, 1, D)."""
        return self._images(image_BCSS)[:, None]

    def encode_text(self, text_TL: Tensor) -> Tensor:
        """Text vectors, (T, D)."""
        return self._texts(text_TL)


class OneVectorAndPatches(OneVector):
    """The same with `patches`, patch tokens in the joint space (B, rows, columns, D), and the last attention."""

    def __init__(self, model: nn.Module, images: Encode, texts: Encode, patches: Encode, attention: nn.Module) -> None:
        super().__init__(model, images, texts)
        self._patches = patches
        self.last_attention = attention

    def patch_maps(self, image_BCSS: Tensor) -> Tensor:
        """Patch tokens, (B, 1, rows, columns, D)."""
        return self._patches(image_BCSS)[:, None]


def upright_first(preprocess: Callable[[Image.Image], Tensor]) -> Callable[[Image.Image], Tensor]:
    """A model's own preprocessing, of the picture as people see it."""
    return lambda image: preprocess(upright_rgb(image))
