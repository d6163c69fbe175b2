"""Features are the model's, in the benchmark's order, made once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation import benchmarks
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.features import EncodedBenchmark, Needs, features
from evaluation.measure import needs_of
from pipeline.errors import InputError
from pipeline.storage import Location
from tests.evaluation.conftest import TINY
from training.model import HolisticCLIP, make_tokenizer
from training.preprocess import make_preprocess, preprocessing

NAMES = ("colour", "detail")
PREPROCESS = make_preprocess(preprocessing(16, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))


def encoder(model: nn.Module, weights: str = "w") -> Encoder:
    return Encoder("run", "f", weights, model, PREPROCESS, make_tokenizer(TINY), NAMES)


def encoded(
    who: Encoder, benchmark: benchmarks.Benchmark, config: EvaluateConfig, cache: Location
) -> EncodedBenchmark:
    return features(who, benchmark, config, cache, needs_of(benchmark, config))


@pytest.fixture
def model() -> HolisticCLIP:
    torch.manual_seed(0)
    return HolisticCLIP(TINY, NAMES).eval()


@torch.inference_mode()
@pytest.mark.parametrize(("image_batch", "text_batch"), [(5, 4), (64, 256)])
def test_features_are_the_models_whatever_the_batches(
    squares: Path, tmp_path: Path, model: HolisticCLIP, image_batch: int, text_batch: int
) -> None:
    benchmark = benchmarks.read(squares)
    config = EvaluateConfig(image_batch=image_batch, text_batch=text_batch, device="cpu")
    found = encoded(encoder(model), benchmark, config, Location.of(tmp_path / "cache"))
    stacked = torch.stack([PREPROCESS(Image.open(benchmark.image(i).uri)) for i in range(len(benchmark.files))])
    torch.testing.assert_close(found.branch_NHD, model.encode_branches(stacked), rtol=1e-4, atol=1e-5)
    texts = list(needs_of(benchmark, config).texts)[::-1]
    expected_TD = model.encode_text(make_tokenizer(TINY)(texts), normalize=True)  # padded to the whole context
    torch.testing.assert_close(found.texts(texts), expected_TD, rtol=1e-4, atol=1e-5)


def test_pictures_are_measured_as_people_see_them(squares: Path, tmp_path: Path, model: HolisticCLIP) -> None:
    """A picture that lies on its side with a note of it, a transparent one and one of 16 bits count as they show."""
    images, config = squares / "images", EvaluateConfig(device="cpu")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 31, 3), dtype=np.uint8)
    files = benchmarks.read(squares).files
    upright, turned, transparent = (images / files[index] for index in (0, 1, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(upright)
    Image.fromarray(np.rot90(pixels)).save(turned, exif=exif)
    see_through = np.dstack([np.zeros_like(pixels), np.zeros(pixels.shape[:2], np.uint8)])
    Image.fromarray(see_through, "RGBA").save(transparent)
    Image.new("RGB", (31, 20), "white").save(images / files[3])
    Image.fromarray(pixels[..., 0]).save(images / files[4])
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(images / files[5])
    found = encoded(encoder(model), benchmarks.read(squares), config, Location.of(tmp_path / "c")).branch_NHD
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[3])
    torch.testing.assert_close(found[4], found[5])
    assert not torch.allclose(found[0], found[3], atol=1e-3)


def test_copies_and_texts_of_the_same_tokens_are_encoded_once(
    squares: Path, tmp_path: Path, model: HolisticCLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, files = squares / "images", benchmarks.read(squares).files
    for copy in (5, 11):
        (images / files[copy]).write_bytes((images / files[0]).read_bytes())
    benchmark, seen = benchmarks.read(squares), []
    encode = model.encode_branches
    monkeypatch.setattr(
        model, "encode_branches", lambda image_BCSS: seen.append(len(image_BCSS)) or encode(image_BCSS)
    )
    texts = Needs(["A red square", "a thing", "a red  square"])
    config = EvaluateConfig(device="cpu", image_batch=3, text_batch=1)
    found = features(encoder(model), benchmark, config, Location.of(tmp_path / "c"), texts)
    assert sum(seen) == 10
    assert found.branch_NHD[0].equal(found.branch_NHD[5])
    assert found.branch_NHD[0].equal(found.branch_NHD[11])
    assert found.texts(["A red square"]).equal(found.texts(["a red  square"]))
    assert not torch.allclose(found.texts(["a thing"]), found.texts(["A red square"]))


class Refusing(nn.Module):
    def encode_branches(self, image_BCSS: Tensor) -> Tensor:
        raise AssertionError("encoded again")

    encode_text = encode_branches


def test_a_second_look_encodes_nothing_and_other_weights_do(
    squares: Path, tmp_path: Path, model: HolisticCLIP
) -> None:
    benchmark, cache = benchmarks.read(squares), Location.of(tmp_path / "cache")
    first = encoded(encoder(model), benchmark, EvaluateConfig(device="cpu"), cache)
    again = encoded(encoder(Refusing()), benchmark, EvaluateConfig(device="cpu", seed=9), cache)
    assert torch.equal(first.branch_NHD, again.branch_NHD)
    assert torch.equal(first.text_TD, again.text_TD)
    with pytest.raises(AssertionError, match="encoded again"):
        encoded(encoder(Refusing(), "other"), benchmark, EvaluateConfig(device="cpu"), cache)
    for damage in (lambda data: data[:100], lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:]):
        for file in (tmp_path / "cache").rglob("*.npy"):
            file.write_bytes(damage(file.read_bytes()))
        healed = encoded(encoder(model), benchmark, EvaluateConfig(device="cpu"), cache)
        assert torch.equal(first.branch_NHD, healed.branch_NHD)
        assert torch.equal(first.text_TD, healed.text_TD)


def test_a_changed_label_encodes_no_picture_again(
    squares: Path, tmp_path: Path, model: HolisticCLIP, rewrite: Callable[[Path, Any], None]
) -> None:
    cache, config = Location.of(tmp_path / "cache"), EvaluateConfig(device="cpu")
    first = encoded(encoder(model), benchmarks.read(squares), config, cache)
    rewrite(squares / "labels.parquet", lambda rows: rows[5].update(colour="red"))
    again = encoded(encoder(Refusing()), benchmarks.read(squares), config, cache)
    assert torch.equal(first.branch_NHD, again.branch_NHD)
    (squares / "images" / "1-blue-small.png").write_bytes((squares / "images" / "0-red-large.png").read_bytes())
    with pytest.raises(AssertionError, match="encoded again"):
        encoded(encoder(Refusing()), benchmarks.read(squares), config, cache)


def test_a_picture_that_is_none_is_named(squares: Path, tmp_path: Path, model: HolisticCLIP) -> None:
    (squares / "images" / "1-blue-small.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"1-blue-small.png cannot be decoded"):
        encoded(encoder(model), benchmarks.read(squares), EvaluateConfig(device="cpu"), Location.of(tmp_path / "c"))


class Broken(nn.Module):
    def encode_branches(self, image_BCSS: Tensor) -> Any:
        return F.normalize(torch.full((len(image_BCSS), 2, 4), np.nan), dim=-1)


def test_a_model_that_gives_no_numbers_is_refused(squares: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run 'run' gives embeddings of images that are not finite"):
        encoded(encoder(Broken()), benchmarks.read(squares), EvaluateConfig(device="cpu"), Location.of(tmp_path / "c"))


class Dying(nn.Module):
    """A model that is killed after some batches."""

    def __init__(self, model: HolisticCLIP, batches: int) -> None:
        super().__init__()
        self.model, self.left, self.images = model, batches, 0

    def encode_branches(self, image_BCSS: Tensor) -> Tensor:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.images += len(image_BCSS)
        return self.model.encode_branches(image_BCSS)

    def encode_text(self, text_TL: Tensor) -> Tensor:
        return self.model.encode_text(text_TL)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_run_that_is_killed_goes_on_after_the_last_whole_shard(
    squares: Path, tmp_path: Path, model: HolisticCLIP, precision: str
) -> None:
    benchmark, cache = benchmarks.read(squares), Location.of(tmp_path / "cache")
    config = EvaluateConfig(
        device="cpu", image_batch=2, text_batch=3, feature_shard=5, feature_precision=precision, workers=1
    )
    with pytest.raises(KeyboardInterrupt):
        encoded(encoder(Dying(model, batches=5)), benchmark, config, cache)
    rest = Dying(model, batches=99)
    found = encoded(encoder(rest), benchmark, config, cache)
    assert rest.images == 12 - 5, "the first shard of five was whole"
    at_once = encoded(encoder(model), benchmark, config, Location.of(tmp_path / "other"))
    assert torch.equal(found.branch_NHD, at_once.branch_NHD)
    assert found.branch_NHD.dtype == getattr(torch, precision)
    whole = EvaluateConfig(device="cpu")
    plain = encoded(encoder(model), benchmark, whole, Location.of(tmp_path / "whole"))
    tolerance = 1e-5 if precision == "float32" else 1e-3
    torch.testing.assert_close(found.branch_NHD.float(), plain.branch_NHD, atol=tolerance, rtol=0)
    texts = list(needs_of(benchmark, config).texts)
    torch.testing.assert_close(found.texts(texts), plain.texts(texts), atol=tolerance, rtol=0)
