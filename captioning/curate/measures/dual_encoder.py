"""A model that puts pictures and texts into one space: any of open_clip's, or a Holism checkpoint.

Both are (model, preprocess, tokenizer) with `encode_image` and `encode_text`, so one class serves them. How a Holism
checkpoint is loaded is handed in from outside (`LoadCheckpoint`): captioning does not import training.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from captioning.curate.measures.config import ScorerConfig
from pipeline.contents import content_digest
from pipeline.errors import ConfigError, HolismError, InputError
from pipeline.identity import digest
from pipeline.storage import Location

if TYPE_CHECKING:
    from PIL.Image import Image

LOAD_CHECKPOINT = "load_checkpoint"  # the service of this kind
LoadCheckpoint = Callable[[str, str], tuple[Any, Any, Any]]  # (path, device) → (model, preprocess, tokenizer)
Item = TypeVar("Item")
THREADS = min(8, os.cpu_count() or 1)  # that decode and scale pictures
LOCAL = "local-dir:"  # open_clip's word for a folder with a model of its kind


class DualEncoder:
    """Unit vectors of pictures and texts; their inner product is the image-text score."""

    def __init__(self, model: Any, preprocess: Any, tokenizer: Any, device: str, batch_size: int) -> None:
        self.model, self.preprocess, self.tokenizer = model.to(device).eval(), preprocess, tokenizer
        self.device, self.batch_size = device, batch_size

    def encode_images(self, sources: Sequence[Item], load: Callable[[Item], Image | None]) -> np.ndarray:
        """(sources, D) float32; NaN where `load` gives no picture. Threads load and scale ahead of the model."""
        import torch

        def prepare(source: Item) -> Any:
            image = load(source)
            return None if image is None else self.preprocess(image)

        encoded: list[np.ndarray] = []
        with torch.inference_mode():
            for batch in batches(_ahead(prepare, sources, 2 * self.batch_size), self.batch_size):
                there = [place for place, pixels in enumerate(batch) if pixels is not None]
                if not there:
                    encoded.append(np.full((len(batch), self._width()), np.nan, np.float32))
                    continue
                pixels = torch.stack([batch[place] for place in there]).to(self.device)
                vectors = self.model.encode_image(pixels, normalize=True).float().cpu().numpy()
                encoded.append(np.full((len(batch), vectors.shape[1]), np.nan, np.float32))
                encoded[-1][there] = vectors
        return np.concatenate(encoded)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, D) float32; a text that is longer than the model's context is cut there.

        Texts of a length go together, without the padding behind them where the model can do without (Holism's can,
        open_clip's cannot): most captions are a fifth of the context.
        """
        tokens_TL = self.tokenizer(list(texts))
        length_T = (tokens_TL != 0).sum(dim=1)
        if not self._reads_short_texts:
            length_T = length_T.new_full(length_T.shape, tokens_TL.shape[1])
        order = length_T.argsort(stable=True)
        encoded = [
            self._encode_tokens(tokens_TL[rows, : int(length_T[rows].max())]) for rows in order.split(self.batch_size)
        ]
        return np.concatenate(encoded)[order.argsort().numpy()]

    @cached_property
    def _reads_short_texts(self) -> bool:
        """Whether padding changes nothing for this model: it is tried, as text towers differ in this."""
        tokens = self.tokenizer(["A boat on the sea."])
        try:
            short = self._encode_tokens(tokens[:, : int((tokens != 0).sum())])
        except RuntimeError:  # it takes its whole context or nothing
            return False
        return bool(np.allclose(short, self._encode_tokens(tokens), atol=1e-5))

    def _encode_tokens(self, tokens_TL: Any) -> np.ndarray:
        import torch

        with torch.inference_mode():
            vectors = self.model.encode_text(tokens_TL.to(self.device), normalize=True)
        array: np.ndarray = vectors.float().cpu().numpy()
        return array

    def _width(self) -> int:
        return self.encode_texts([""]).shape[1]


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, the last one shorter."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _ahead(work: Callable[[Any], Any], items: Iterable[Any], most: int) -> Iterator[Any]:
    """`map` by threads, in order, with no more than `most` results waiting."""
    with ThreadPoolExecutor(THREADS, "pictures") as pool:
        waiting: deque[Future[Any]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def scorer_digest(config: ScorerConfig) -> str:
    """Identity of the model, found without loading it: by content where it lies in files, else by name.

    Raises `InputError` if a path leads nowhere.
    """
    if config.checkpoint is not None:
        return digest(["checkpoint", _files_digest("checkpoint", config.checkpoint)])
    names = [config.model or "", config.pretrained or ""]
    paths = [("model", names[0].removeprefix(LOCAL))] if names[0].startswith(LOCAL) else []
    paths += [("pretrained", names[1])] if _is_path(names[1]) else []
    return digest(["open_clip", *names, *(_files_digest(key, path) for key, path in paths)])


def refuse_own_checkpoint(config: ScorerConfig, workspace: Location) -> None:
    """A model that judges the captions it will be trained on, and was trained on, would only confirm itself."""
    if config.checkpoint is None:
        return
    checkpoint, root = (_real(Location.of(place)) for place in (config.checkpoint, workspace))
    if checkpoint == root or checkpoint.startswith(f"{root}/"):
        raise ConfigError(
            f"curate.ground.scorer.checkpoint is {config.checkpoint}, which lies in this very workspace "
            f"({workspace}): it would judge the captions that it was trained on; name one of another workspace"
        )


@lru_cache(maxsize=2)
def load_encoder(config: ScorerConfig, weights: str, load_checkpoint: LoadCheckpoint | None) -> DualEncoder:
    """The model, once per process and digest of its `weights`. Raises `InputError` if it does not load."""
    del weights  # part of the cache's key: other weights under the same path are another model
    device = config.device if config.device != "auto" else _best_device()
    if config.checkpoint is not None and load_checkpoint is None:
        raise ConfigError("curate.ground.scorer.checkpoint needs the loader that the holism command hands in")
    try:
        if config.checkpoint is not None and load_checkpoint is not None:
            parts = load_checkpoint(config.checkpoint, device)
        else:
            parts = _open_clip(config)
    except HolismError:
        raise
    except Exception as error:  # open_clip raises whatever its loaders stumble over
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        shown = config.checkpoint or f"{config.model} with {config.pretrained or 'its own weights'}"
        raise InputError(
            f"curate.ground.scorer does not load: {shown} ({reason}); expected one of open_clip's models with a path "
            "or tag of its weights, or a Holism checkpoint"
        ) from error
    return DualEncoder(*parts, device, config.batch_size)


def _open_clip(config: ScorerConfig) -> tuple[Any, Any, Any]:
    import open_clip

    assert config.model is not None
    model, preprocess = open_clip.create_model_from_pretrained(config.model, config.pretrained)
    return model, preprocess, open_clip.get_tokenizer(config.model)


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _is_path(name: str) -> bool:
    """Weights are a path if they look like one; everything else is one of open_clip's tags."""
    return "/" in name or name.endswith((".pt", ".pth", ".bin", ".safetensors"))


def _files_digest(key: str, path: str) -> str:
    place = Location.of(path)
    files = [file for file, _ in place.files()] if place.is_dir() else [place]
    if not files or not all(file.exists() for file in files):
        raise InputError(
            f"curate.ground.scorer.{key} is {path}, and nothing is there; name an existing file or folder"
        )
    return content_digest(files)


def _real(place: Location) -> str:
    return os.path.realpath(place.uri) if place.is_local else place.uri
