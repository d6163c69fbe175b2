"""A Holism model as MTEB calls it: the vectors that we measure; MTEB's own tasks run where it is installed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from evaluation import benchmarks, models, readouts
from evaluation.config import EvaluateConfig
from evaluation.features import Needs, features
from evaluation.mteb_model import MtebModel
from tests.evaluation.test_models import tiny_holism

TEXTS = ["a red square", "something blue", "two words"]
SAID = {"task_metadata": None, "hf_split": "test", "hf_subset": "default", "prompt_type": None, "batch_size": 2,
        "show_progress_bar": False}  # fmt: skip


class Loader(list[dict[str, Any]]):
    """Batches of MTEB's DataLoader, which names its columns in `dataset.features`."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        rows = len(next(iter(columns.values())))
        super().__init__(
            {name: column[start : start + 2] for name, column in columns.items()} for start in range(0, rows, 2)
        )
        self.dataset = SimpleNamespace(features=dict.fromkeys(columns))


def test_vectors_are_the_served_ones(squares: Path, tmp_path: Path) -> None:
    place = str(tiny_holism(tmp_path / "first"))
    encoder, benchmark = models.load("first", place), benchmarks.read(squares)
    measured = features(encoder, benchmark, EvaluateConfig(device="cpu"), None, Needs(TEXTS))
    served_ND = readouts.vectors("mean", measured.branch_NHD, encoder.branches)[:, 0]
    images = [Image.open(benchmark.image(index).uri) for index in range(len(benchmark.files))]
    asked = MtebModel(place, device="cpu")
    image_ND, text_TD = asked.encode(Loader({"image": images}), **SAID), asked.encode(Loader({"text": TEXTS}), **SAID)
    torch.testing.assert_close(image_ND, served_ND, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(text_TD, measured.texts(TEXTS), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(asked.similarity(image_ND, text_TD), image_ND @ text_TD.T)
    pairs_T = asked.similarity_pairwise(image_ND[:3].numpy(), text_TD.numpy())
    torch.testing.assert_close(pairs_T, (image_ND[:3] @ text_TD.T).diagonal())
    both_TD = asked.encode(Loader({"image": images[:3], "text": TEXTS}), **SAID)
    torch.testing.assert_close(both_TD, torch.nn.functional.normalize(image_ND[:3] + text_TD, dim=-1))
    with pytest.raises(ValueError, match="expected pictures or texts, found audio"):
        asked.encode(Loader({"audio": [b""]}), **SAID)


def test_mteb_runs_its_own_tasks(tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb", reason="MTEB is not installed")
    from mteb.mocks import mock_tasks
    from mteb.models.models_protocols import EncoderProtocol

    model = MtebModel(str(tiny_holism(tmp_path / "first")), device="cpu")
    assert isinstance(model, EncoderProtocol)
    tasks = [
        mock_tasks.MockAny2AnyRetrievalT2ITask(),
        mock_tasks.MockAny2AnyRetrievalI2TTask(),
        mock_tasks.MockZeroShotClassificationTask(),
        mock_tasks.MockImageTextPairClassificationTask(),
        mock_tasks.MockImageClassificationTask(),
    ]
    found = mteb.evaluate(model, tasks, cache=None, show_progress_bar=False)
    assert found.model_revision == model.revision
    assert {result.task_name for result in found.task_results} == {task.metadata.name for task in tasks}
    assert all(0 <= result.get_score() <= 1 for result in found.task_results)
