"""Usage and cosines of branches, and the alarm when one is dead."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.training.loss_references import embeddings, everything
from tests.training.test_stage import stage_run
from training import health
from training.health import WINDOW, branch_health, dead_branches, usage
from training.losses import Features, gather
from training.stage import run_train

NAMES = ("detail", "style", "nouns")


def one_sided() -> Features:
    """Every caption is its image's first branch; the other two branches are near to each other."""
    v = F.normalize(torch.randn(10, 3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    v[:, 2] = F.normalize(v[:, 1] + 0.1, dim=-1)
    mask = everything(3, 10)
    mask[4:, 1] = False
    return gather(v, v[:, :1].expand(-1, 3, -1), mask, torch.tensor(5.0))


def test_health_names_the_branches() -> None:
    features = one_sided()
    health = branch_health(features, NAMES, {"m2m": 1.0})
    assert [float(health[f"usage/{name}"]) for name in NAMES] == [1.0, 0.0, 0.0]
    pairs = [(0, 1), (0, 2), (1, 2)]
    cosines = [float(F.cosine_similarity(features.image_BHD[:, a], features.image_BHD[:, b]).mean()) for a, b in pairs]
    assert float(health["branch_cosine"]) == pytest.approx(sum(cosines) / 3, abs=1e-6)
    assert float(health["branch_cosine_max"]) == pytest.approx(cosines[2], abs=1e-6)
    assert max(cosines) == cosines[2] < 0.99


def test_a_single_branch_is_healthy() -> None:
    v, t, s = embeddings(0, 4, 1, 2)
    assert {
        name: float(x) for name, x in branch_health(gather(v, t, everything(2, 4), s), ("image",), {}).items()
    } == {"branch_cosine": 1.0}


def test_usage_is_that_of_the_matching_that_is_trained_with() -> None:
    v, t, s = embeddings(1, 60, 2, 3)
    features = gather(v, t, everything(3, 60), s)
    nearest = torch.einsum("nhd,nmd->nmh", v, t).argmax(dim=2)
    share = (nearest == 0).double().mean()
    torch.testing.assert_close(usage(features, {"served": 1.0})[0], share)
    of_third = (nearest[:, 2] == 0).double().mean()  # the only slot that chooses
    torch.testing.assert_close(usage(features, {"free_matching": 1.0})[0], of_third)
    assert (usage(features, {"free_matching_balanced": 1.0}) - 0.5).abs().max() < 0.1
    assert usage(features, {"free_matching": 1.0}).sum() == pytest.approx(1.0)


def rows(count: int, **shares: float) -> list[dict[str, Any]]:
    return [{"step": step, **{f"usage/{name}": share for name, share in shares.items()}} for step in range(count)]


def test_a_branch_that_is_hardly_chosen_is_named() -> None:
    lines = rows(WINDOW + 50, detail=0.7, style=0.01, nouns=0.29)
    assert dead_branches(lines, NAMES) == {
        "style": "branch style is dead: in steps 50 to 149 1.0% of the captions chose it, a fair share being 33.3%; "
        "use fewer branches, or free_matching_balanced"
    }


def test_few_steps_and_recovered_branches_are_no_alarm() -> None:
    assert not dead_branches(rows(WINDOW, detail=0.7, style=0.04, nouns=0.26), NAMES)  # a tenth of a third is 0.033
    assert not dead_branches(rows(WINDOW - 1, detail=1.0, style=0.0, nouns=0.0), NAMES)
    alive = rows(WINDOW, detail=0.0, style=0.5, nouns=0.5) + rows(WINDOW, detail=0.2, style=0.4, nouns=0.4)
    assert not dead_branches(alive, NAMES)
    assert not dead_branches([{"step": step} for step in range(WINDOW)], ("image",))


def test_a_dead_branch_is_warned_of(
    tmp_path: Path,
    recipe: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the terminal once, when it dies, and in the manifest, if it still is at the end."""
    monkeypatch.setattr(health, "WINDOW", 3)
    monkeypatch.setattr(health, "DEAD_SHARE", 3.1)  # of three branches' fair share: more than all captions
    outcome = run_train(stage_run(tmp_path, recipe(losses={"free_matching": 1.0}, log_every=1)))
    for name in ("alt_text", "detail", "style"):
        assert any(f"branch {name} is dead: in steps 6 to 8" in warning for warning in outcome.warnings)
    assert capsys.readouterr().err.count("warning: branch style is dead: in steps 0 to 2") == 1
