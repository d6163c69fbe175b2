"""Operations of the towers, against what they come to by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import build
from tests.training.test_trainer import run
from training.checkpoint import new_model
from training.config import RunConfig
from training.figures import note
from training.flops import TowerFlops, Utilisation, count, peak_flops, utilisation
from training.model import HolisticCLIP
from training.optim import freeze
from training.ranks import Ranks

CPU = torch.device("cpu")


def text_by_hand(length: int, width: int, layers: int, embed: int, passes: int = 3) -> float:
    """A block is 12 products with its width squared a token, and attention over all pairs; then the projection."""
    block = 2 * 12 * width**2 * length + 2 * 2 * length**2 * width
    return passes * (layers * block + 2 * width * embed)


@pytest.mark.parametrize("frozen", [[], ["text"]])
def test_text_towers_operations(tiny_architecture: dict[str, Any], frozen: list[str]) -> None:
    config = build(RunConfig, {"model": tiny_architecture, "slots": ["a", "b"], "freeze": frozen, "warm_start": "x"})
    model = new_model(config)
    freeze(model, config)
    flops = count(model, CPU)
    passes = 1 if frozen else 3  # forward; backward is as much again for activations, and for weights
    for length in (5, 17, 32):
        assert flops.of_text(length) == pytest.approx(text_by_hand(length, 32, 2, 24, passes), rel=1e-3)
    batch = [torch.zeros(3, 5), torch.zeros(2, 32)]
    assert flops(4, batch) == pytest.approx(4 * flops.image + 3 * flops.of_text(5) + 2 * flops.of_text(32))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_branches_cost_little_more(tiny_architecture: dict[str, Any]) -> None:
    def of_image(**changes: Any) -> float:
        return count(new_model(build(RunConfig, {"model": tiny_architecture, **changes})), CPU).image

    one = of_image(branches=1, losses={"served": 1.0})
    tokens, block = 17, 2 * 12 * 32**2
    by_hand = 3 * 2 * (tokens * block + 4 * tokens**2 * 32)
    assert 0.5 * by_hand < one < 1.2 * by_hand  # patches are embedded too, and the last block is for class rows alone
    assert one < of_image(branches=5, losses={"served": 1.0})


def test_a_steps_utilisation_is_its_operations_by_its_time(
    tmp_path: Path, recipe: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device that does so many operations a second."""
    counted: list[TowerFlops] = []

    def known(model: HolisticCLIP, *_: Any) -> Utilisation:
        counted.append(count(model, CPU))
        return Utilisation(counted[0], 1e6)

    monkeypatch.setattr("training.trainer.utilisation", known)
    rows = [json.loads(line) for line in run(tmp_path, recipe(epochs=1)).metrics.splitlines()]
    (flops,) = counted
    for row in rows:
        done = row["mfu"] * row["seconds"] * 1e6
        images = recipe()["global_batch"] * flops.image
        assert (
            images + 0.99 * row["tokens"] * flops.text[1]
            < done
            < 1.01 * images + row["tokens"] * flops.of_text(32) / 4
        )
        assert "tflop" not in row


def test_utilisation_is_shown_where_the_devices_speed_is_known(tiny_architecture: dict[str, Any]) -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA L40S") != peak_flops("NVIDIA L4")
    assert peak_flops("Some Card 9000") is None
    config = build(RunConfig, {"model": tiny_architecture, "slots": ["a", "b"]})
    assert utilisation(new_model(config), config, Ranks(0, 1, CPU)) is None
    row = {"epoch": 0.5, "loss": 1.0, "lr": 1e-3, "seconds": 1.0, "wait": 0.0, "tokens": 100}
    assert "MFU" not in note([row])
    assert "MFU 30 %" in note([{**row, "mfu": 0.4}, {**row, "mfu": 0.2}])
