"""Zero-shot classification: the classifier is open_clip's, accuracies mean what they say."""

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional as F

from evaluation import classification, intervals
from evaluation.classes import Classes
from training.model import HolisticCLIP, make_tokenizer

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@torch.inference_mode()
def test_class_vectors_are_those_of_open_clip() -> None:
    torch.manual_seed(0)
    model, tokenizer = HolisticCLIP(TINY, ("alt_text",)).eval(), make_tokenizer(TINY)
    task = Classes(classes=("star", "red boat", "an old car"), templates=("a photo of a {}.", "{}", "the {} there"))
    reference_DC = open_clip.build_zero_shot_classifier(
        model, tokenizer, task.classes, [lambda name, t=t: t.replace("{}", name) for t in task.templates]
    )
    prompt_CTD = torch.stack([model.encode_text(tokenizer(names), normalize=True) for names in task.prompts()])
    torch.testing.assert_close(classification.class_vectors(prompt_CTD), reference_DC.T, rtol=1e-5, atol=1e-6)


def test_a_perfect_encoder_is_right_and_a_random_one_reaches_chance() -> None:
    actual_N = np.arange(900) % 9
    class_CD = torch.eye(9)
    vector_NGD = class_CD[torch.from_numpy(actual_N)].unsqueeze(1)
    assert (classification.predict(vector_NGD, class_CD).right(actual_N) == 1).all()
    generator = torch.Generator().manual_seed(3)
    random_NGD = F.normalize(torch.randn(900, 1, 9, generator=generator), dim=-1)
    right_N = classification.predict(random_NGD, class_CD).right(actual_N)
    low, high = intervals.interval(intervals.replicates(right_N, samples=1000, seed=0, group_N=actual_N))
    assert low <= 1 / 9 <= high


def test_a_frequent_class_carries_plain_but_not_macro_accuracy() -> None:
    actual_N = np.array([0] * 90 + [1] * 10)
    right_N = actual_N == 0
    assert intervals.statistic(right_N) == pytest.approx(0.9)
    assert intervals.statistic(right_N, actual_N) == pytest.approx(0.5)


def test_confusion_counts_actual_by_predicted() -> None:
    actual, predicted = np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0])
    expected = np.zeros((3, 3), dtype=int)
    np.add.at(expected, (actual, predicted), 1)
    found = classification.predict(torch.eye(3)[torch.from_numpy(predicted)].unsqueeze(1), torch.eye(3))
    assert (found.confusion(actual, 3) == expected).all()


def test_classes_of_equal_score_share() -> None:
    """Of three classes two have the same name: who is one of them is right half the time, whichever it is."""
    class_CD, actual_N = torch.eye(2)[[0, 1, 0]], np.array([0, 1, 2, 1])
    found = classification.predict(torch.eye(2)[[0, 1, 0, 0]].unsqueeze(1), class_CD)
    assert found.right(actual_N).tolist() == [0.5, 1, 0.5, 0]
    assert found.confusion(actual_N, 3).tolist() == [[0.5, 0, 0.5], [0.5, 1, 0.5], [0.5, 0, 0.5]]
