"""Recipes: slots by name, branch names, runs that vary a recipe, and messages that name the key."""

import subprocess
import sys
from typing import Any

import pytest

from pipeline.config import build, semantic
from pipeline.errors import ConfigError
from training.config import DEFAULT_SLOTS, RunConfig, TrainConfig


def test_default_slots_are_the_eight_with_their_granularities() -> None:
    config = build(TrainConfig, {})
    assert tuple(slot.name for slot in config.slots) == config.branch_names == DEFAULT_SLOTS
    by_name = {slot.name: slot for slot in config.slots}
    assert (by_name["sentence"].perspective, by_name["sentence"].granularity) == ("summary", "sentence")
    assert (by_name["style"].perspective, by_name["style"].granularity) == ("style", None)


def test_a_run_names_only_what_differs() -> None:
    runs = {"holism": {}, "alt_text_o2o": {"slots": ["alt_text"], "losses": {"o2o": 1.0}, "epochs": 3}}
    config = build(TrainConfig, {"lr": 2e-3, "epochs": 9, "runs": runs})
    baseline, full = config.run("alt_text_o2o"), config.run("holism")
    assert (baseline.lr, baseline.epochs, baseline.losses, baseline.branch_names) == (
        2e-3, 3, {"o2o": 1.0}, ("alt_text",),
    )  # fmt: skip
    assert (full.epochs, full.losses, len(full.slots)) == (9, {"m2m": 1.0, "served": 1.0}, 8)
    assert "runs" not in semantic(full)


def test_operational_settings_are_no_part_of_a_recipe() -> None:
    one, other = build(RunConfig, {"workers": 0, "checkpoint_every": 5, "device": "cpu"}), build(RunConfig, {})
    assert semantic(one) == semantic(other)
    assert semantic(build(RunConfig, {"global_batch": 8})) != semantic(other)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"branches": 1, "losses": {"o2m": 1}}, ("image",)),
        ({"branches": 3, "losses": {"free_matching": 1}}, ("alt_text", "detail", "sentence")),
        ({"slots": ["style"], "branches": 3, "losses": {"free_matching": 1}}, ("style", "free_1", "free_2")),
    ],
)
def test_branches_are_named_by_slots(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    assert build(RunConfig, changes).branch_names == names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"losses": {"m3m": 1}}, "m3m"),
        ({"losses": {}}, "at least one term"),
        ({"losses": {"m2m": 0}}, "above 0"),
        ({"branches": 3}, "m2m needs a branch per slot, found 3 for 8"),
        ({"losses": {"o2o": 1}}, "o2o needs one branch, found 8"),
        ({"slots": ["style", "style"]}, "no name twice"),
        (
            {"slots": ["style", {"name": "mood", "perspective": "style"}]},
            "style and mood want the same captions, of which the first would get all",
        ),
        ({"crop_scale": [0.9, 0.5]}, "smallest <= largest"),
        ({"runs": {"bad/name": {}}}, "bad/name"),
        ({"runs": {"x": {"epoch": 1}}}, "did you mean 'epochs'"),
        ({"runs": {}}, "at least one run"),
    ],
)
def test_messages_name_what_is_wrong(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, data, source="train")


def test_reading_a_recipe_imports_nothing_heavy() -> None:
    program = "import sys, training.stage; assert not {'torch', 'open_clip', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
