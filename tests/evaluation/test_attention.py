"""Attention pictures: bright where a branch looks, and only where there are branches to compare."""

from pathlib import Path

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from evaluation import benchmarks
from evaluation.attention import DARKEST, lit, looks
from evaluation.encoder import Encoder
from tests.evaluation.conftest import TINY
from training.model import HolisticCLIP, make_tokenizer


def encoder(names: tuple[str, ...]) -> Encoder:
    preprocess = image_transform_v2(PreprocessCfg(size=16), is_train=False)
    return Encoder("run", "f", "w", HolisticCLIP(TINY, names).eval(), preprocess, make_tokenizer(TINY), names)


def test_what_is_attended_to_stays_bright() -> None:
    weight_RC = np.zeros((4, 4))
    weight_RC[0, 3] = 0.7
    picture = np.asarray(lit(Image.new("RGB", (96, 96), (200, 200, 200)), weight_RC))
    assert picture[6, 90].min() > 180
    assert abs(int(picture[90, 6].max()) - round(200 * DARKEST)) <= 1
    even = np.asarray(lit(Image.new("RGB", (96, 96), (200, 200, 200)), np.full((4, 4), 0.1)))
    assert (even == 200).all()


def test_every_branch_gets_its_picture(squares: Path) -> None:
    torch.manual_seed(0)
    benchmark = benchmarks.read(squares)
    found = looks(encoder(("colour", "detail", "size")), benchmark, seed=0)
    assert len({row.file for row in found}) == 5
    assert all(len(row.branches) == len(set(row.branches)) == 3 for row in found)
    assert [row.file for row in looks(encoder(("a", "b")), benchmark, seed=0)] == [row.file for row in found]


def test_one_branch_has_nothing_to_compare(squares: Path) -> None:
    assert looks(encoder(("image",)), benchmarks.read(squares), seed=0) == []
