"""Recipes: slots by name, branch names, runs that vary a recipe, and messages that name the key."""

import subprocess
import sys
from typing import Any

import pytest

from pipeline.config import build, semantic
from pipeline.errors import ConfigError
from training.config import RunConfig, TrainConfig
from training.slots import DEFAULT_SLOTS
from training.towers import TextTower, VisionTower


def towers(**vision: int) -> dict[str, Any]:
    """Small towers, spelled out."""
    image = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    return {"embed_dim": 16, "vision_cfg": image | vision, "text_cfg": {"width": 32, "heads": 2, "layers": 1}}


def test_towers_can_say_all_that_open_clip_reads() -> None:
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    for section, fields in ((VisionTower, CLIPVisionCfg), (TextTower, CLIPTextCfg)):
        of_others = {name for name in fields.__dataclass_fields__ if name.startswith(("timm_", "hf_"))}
        assert set(section.model_fields) == set(fields.__dataclass_fields__) - of_others


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
        ({"ema": 1.0}, "'ema' is 1.0"),
        ({"evaluation": {"every": 9}, "best": {"figure": "b/ema_accuracy"}}, "b/ema_accuracy is of averaged weights"),
        ({"runs": {"bad/name": {}}}, "bad/name"),
        ({"runs": {"x": {"epoch": 1}}}, "did you mean 'epochs'"),
        ({"runs": {}}, "at least one run"),
        ({"model": "ViT-B-17"}, r"'ViT-B-17' is not in open_clip's registry; did you mean 'ViT-B-1"),
        ({"runs": {"a": {"model": "NoSuchModel"}}}, "'NoSuchModel' is not in open_clip's registry"),
        ({"model": "RN50"}, "a ResNet as its image tower"),
        ({"model": towers(width=-5)}, r"'vision_cfg.width' is -5: expected a number of at least 1"),
        ({"model": towers(width=10**12)}, r"'vision_cfg.width' is 1000000000000: expected a number"),
        ({"model": towers(patch_size=64)}, "patch_size 64 is above image_size 32"),
        ({"model": towers(width=33, head_width=11, patch=4)}, "unknown key 'vision_cfg.patch': did you mean"),
        ({"model": towers(head_width=64)}, "width 32 cannot be cut into heads of width 64"),
        ({"model": {"embed_dim": 8}}, "vision_cfg, text_cfg missing"),
        ({"runs": {"a": {"model": {"x": "2020-01-01"}}}}, "embed_dim, vision_cfg, text_cfg missing"),
        ({"model": towers(), "branch_blocks": 3}, "branch_blocks is 3, but the image tower has 1 blocks"),
        ({"seed": -1}, "'seed' is -1"),
        ({"seed": 2**32}, "'seed' is 4294967296"),
        ({"lr": float("inf")}, "'lr' is inf: expected a finite number"),
        ({"lr": "nan"}, "'lr' is 'nan': expected a finite number"),
        ({"losses": {"m2m": float("nan")}}, "'losses.m2m' is nan"),
        ({"image_std": [0.2, 0, 0.2]}, "three numbers above 0"),
        ({"launch": {"ray": {}}}, "'launch.ray.workers' is missing"),
        ({"launch": {"ray": {"workers": [3, 2]}}}, r"is \[3, 2\]: expected \[min, max\] with 1 <= min <= max"),
        ({"launch": {"ray": {"workers": [0, 2]}}}, r"is \[0, 2\]: expected \[min, max\] with 1 <= min <= max"),
        ({"launch": {"ray": {"workers": [1, 2], "gpus": 2}}}, "'launch.ray.gpus' is 2"),
        ({"launch": {"ray": {"workers": 2}, "ranks": 2}}, "leave one of them out"),
        (
            {"launch": {"ray": {"workers": [1, 8]}}, "global_batch": 4},
            "workers may become 8, but run holism has a glob",
        ),
        ({"launch": {"ray": {"workers": 2, "gpus": 0}}, "device": "cuda"}, "device is cuda, but launch.ray.gpus is 0"),
    ],
)
def test_messages_name_what_is_wrong(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, data, source="train")


def test_workers_are_a_range_or_one_number() -> None:
    for written, expected in (([1, 4], (1, 4)), (4, (4, 4))):
        launch = build(TrainConfig, {"launch": {"ray": {"workers": written}}}).launch
        assert launch.ray is not None
        assert launch.ray.workers == expected


def test_reading_a_recipe_imports_nothing_heavy() -> None:
    program = "import sys, training.stage; assert not {'torch', 'open_clip', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(("cores", "ranks", "workers"), [(1, 1, 1), (2, 1, 1), (4, 1, 3), (64, 1, 8), (64, 8, 7)])
def test_loader_workers_go_by_the_cores_of_a_rank(
    cores: int, ranks: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    assert build(RunConfig, {}).workers == workers
