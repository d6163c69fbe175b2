"""Re-ranking against its plain definition, and within an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from evaluation import benchmarks, readouts, report, rerank
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.measure import evaluate
from evaluation.retrieval import Relevance
from evaluation.tasks.retrieval import NAME as RETRIEVAL
from evaluation.tasks.retrieval import TEXT_TO_IMAGE
from pipeline.storage import Location
from tests.evaluation.conftest import TINY
from training.model import HolisticCLIP, make_tokenizer


def second(patch_BPD: Tensor, text_BTD: Tensor) -> Tensor:
    """The best patch for each text."""
    return (F.normalize(patch_BPD, dim=-1) @ text_BTD.transpose(1, 2)).amax(dim=1)


@given(
    images=st.integers(1, 9),
    texts=st.integers(1, 9),
    depth=st.integers(1, 12),
    seed=st.integers(0, 99),
    block=st.sampled_from([1, 60, 2**25]),
)
@settings(max_examples=60, deadline=None)
def test_the_first_candidates_are_put_in_order(images: int, texts: int, depth: int, seed: int, block: int) -> None:
    torch.manual_seed(seed)
    served_ND, text_TD = F.normalize(torch.randn(images, 4), dim=-1), F.normalize(torch.randn(texts, 4), dim=-1)
    patch_NPD = torch.randn(images, 3, 4)
    one_NT = served_ND @ text_TD.T
    both_NT = one_NT + second(patch_NPD, text_TD.expand(images, -1, -1))
    right_TN = torch.rand(texts, images) < 0.4
    right_TN[0, 0] = True
    asked = Relevance(*np.nonzero(right_TN.numpy()), texts, images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerank, "BLOCK_PATCHES", block)
        by_text = rerank.stand_images(second, served_ND, patch_NPD, text_TD, depth, asked)
        by_image = rerank.stand_texts(second, served_ND, patch_NPD, text_TD, depth, asked.swapped())
    for found, one, both, right in (
        (by_text, one_NT.T, both_NT.T, right_TN),
        (by_image, one_NT, both_NT, right_TN.T),
    ):
        places = []
        for first, total, answers in zip(one, both, right, strict=True):
            order = first.argsort(descending=True).tolist()
            order[:depth] = sorted(order[:depth], key=lambda candidate, total=total: -float(total[candidate]))
            places += [next(i for i, candidate in enumerate(order) if answers[candidate])] if answers.any() else []
        assert found.best().above_Q.tolist() == places
        assert (found.tied_P == 1).all()


def test_who_ties_with_the_first_one_left_out_gets_no_second_score() -> None:
    score_QC = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.1], [0.9, 0.8, 0.8, 0.2, 0.1]])
    index_QK, second_QK = torch.tensor([[0, 1, 2], [0, 1, 2]]), torch.tensor([[-1, 0.1, 0.2], [-1, 0.1, 0.2]])
    found = rerank.reordered(score_QC, index_QK, second_QK)
    assert found[0, 1:].tolist() == score_QC[0, 1:].tolist()
    assert found[0, 0] > found[0, 1:].max()
    assert found[1].argsort(descending=True).tolist() == [2, 1, 0, 3, 4]


def test_models_without_a_second_score_have_no_such_readout() -> None:
    wanted = ("mean", "max", "rerank")
    assert readouts.expand(wanted, ("a", "b")) == ["mean", "max"]
    assert readouts.expand(wanted, ("a", "b"), second_score=True) == ["mean", "max", "rerank"]
    assert readouts.expand(wanted, ("image",), second_score=True) == ["mean", "rerank"]


class Seeing(HolisticCLIP):
    """A model whose second score knows the colour of a picture, and whose served vector knows nothing."""

    def encode_branches(self, image_BCSS: Tensor, normalize: bool = True) -> Tensor:
        return F.normalize(torch.ones(len(image_BCSS), len(self.slots), 16), dim=-1)

    def encode_patches(self, image_BCSS: Tensor, normalize: bool = True) -> Tensor:
        return image_BCSS.flatten(2).amin(dim=2)[:, None]  # the squares' paint

    def conditioned_cosines(self, patch_BND: Tensor, text_BTD: Tensor) -> Tensor:
        return (patch_BND * text_BTD[:, :, :3]).sum(dim=-1)

    def encode_text(self, text_TL: Tensor, normalize: bool = False) -> Tensor:
        colours = {name: i for i, name in enumerate(("red", "green", "blue"))}
        vector_TD = torch.zeros(len(text_TL), 16)
        vector_TD[:, 3] = 1e-3
        for row, ids in enumerate(text_TL.tolist()):
            for word in make_tokenizer(TINY).decode(ids).split():
                if word in colours:
                    vector_TD[row, colours[word]] = 1.0
        return vector_TD


def test_an_evaluation_measures_it(squares: Path, tmp_path: Path) -> None:
    model = Seeing(TINY, ("a", "b"), text_pooling=True).eval()

    def preprocess(image: Image.Image) -> Tensor:
        pixels = np.asarray(image.convert("RGB").resize((16, 16)), dtype=np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    encoder = Encoder("run", "f", "w", model, preprocess, make_tokenizer(TINY), ("a", "b"))
    config = EvaluateConfig(benchmarks=(str(squares),), bootstrap_samples=100, ks=(1, 4))
    found = evaluate(encoder, benchmarks.read_all(config.benchmarks)[0], config, Location.of(tmp_path / "cache"))

    def recall(readout: str) -> Any:
        figure = found.find(RETRIEVAL, readout, "colour", f"{TEXT_TO_IMAGE}_recall@1")
        assert figure is not None
        return figure.value

    assert recall("rerank") == 1.0
    assert recall("mean") < 1.0
    assert {figure.task for figure in found.measurements if figure.readout == "rerank"} == {RETRIEVAL}
    assert "in the order of both scores" in report.render([found], config, "f")
