"""Dense evaluation: masks and pictures stay together, figures are counted by hand, a report shows both."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from evaluation import benchmark_writer, benchmarks, masks, measure, overlays, report, segmentation, table
from evaluation.benchmarks import Benchmark
from evaluation.config import EvaluateConfig
from evaluation.encoder import Encoder
from evaluation.masks import OUTSIDE
from evaluation.regions import Regions, Sliding
from evaluation.segmentation import MeanIoU, Ratio
from evaluation.task import Measurement
from evaluation.windows import Layout, input_side
from pipeline.errors import ConfigError, InputError
from pipeline.storage import Location
from tests.evaluation.conftest import COLOURS

SIDE, PATCH = 32, 4
NAMES = tuple(COLOURS)
PAINTS = torch.tensor([COLOURS[name] for name in NAMES]) / 255
PREPROCESS = image_transform(SIDE, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))


class Blind(nn.Module):
    """Sees which colours there are, and not where. Its second branch takes red for green and green for red."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.swaps = torch.stack([torch.eye(3), torch.eye(3)[[1, 0, 2]]])[:branches]

    def nearest(self, image_BCSS: Tensor) -> Tensor:
        """A patch is the colour that it is nearest to."""
        patch_BCRC = F.avg_pool2d(image_BCSS, PATCH)
        apart_BRCK = (patch_BCRC.movedim(1, -1)[..., None, :] - PAINTS).norm(dim=-1)
        near_BRCK = F.one_hot(apart_BRCK.argmin(dim=-1), 3).float()
        return torch.einsum("brck,gkd->bgrcd", near_BRCK, self.swaps)

    def encode_branches(self, image_BCSS: Tensor) -> Tensor:
        return self.nearest(image_BCSS).mean(dim=(2, 3)) + 1e-3

    def encode_text(self, text_TL: Tensor) -> Tensor:
        return torch.eye(3)[text_TL[:, 0] - 1]


class SeesColours(Blind):
    """The same, and says where."""

    patch_maps = attended_maps = Blind.nearest


def tokens(texts: list[str]) -> Tensor:
    return torch.tensor([[next(n for n, name in enumerate(NAMES, 1) if name in text)] for text in texts])


def encoder(
    branches: int = 1, model: nn.Module | None = None, preprocess: Callable[..., Tensor] = PREPROCESS
) -> Encoder:
    names = ("first", "second")[:branches]
    return Encoder("colours", "f", "w", model or SeesColours(branches), preprocess, tokens, names)


def write(folder: Path, size: tuple[int, int] = (96, 48), **regions: Any) -> Path:
    """Coloured halves of pictures; numbers of masks begin at 1, and the border between the halves is unlabelled."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    columns, rows = size
    files = []
    for number, (left, right) in enumerate([(0, 1), (1, 2), (2, 0), (1, 0)]):
        picture = Image.new("RGB", size, COLOURS[NAMES[left]])
        picture.paste(COLOURS[NAMES[right]], (columns // 2, 0, columns, rows))
        mask = Image.new("P", size, left + 1)
        mask.putpalette([9, 9, 9] * 256)  # of one colour: only numbers tell
        mask.paste(right + 1, (columns // 2, 0, columns, rows))
        mask.paste(255, (columns // 2 - 1, 0, columns // 2 + 1, rows))
        picture.save(folder / "images" / f"{number}.png")
        mask.save(folder / "masks" / f"{number}.png")
        files.append({"file": f"{number}.png"})
    pq.write_table(pa.Table.from_pylist(files), folder / "labels.parquet")
    asked = {"colour": {"classes": list(NAMES), "templates": ["a {} thing", "{}"], "first": 1, **regions}}
    (folder / "benchmark.yaml").write_text(yaml.safe_dump({"name": "halves", "segmentation": asked}))
    return folder


def measured(benchmark: Benchmark, asked: Encoder, **config: Any) -> dict[tuple[str, str], Measurement]:
    found, _ = measure.asked(
        measure.encoded(asked, benchmark, EvaluateConfig(device="cpu", image_batch=3, **config), None)
    )
    return {(figure.metric, figure.readout): figure for figure in found}


@pytest.mark.parametrize("sliding", [None, {"short_side": 1.5, "stride": 0.5}, {"short_side": 1.0, "stride": 0.7}])
def test_a_model_that_sees_every_patch_is_right_everywhere(tmp_path: Path, sliding: dict[str, float] | None) -> None:
    """So picture, windows and mask lie on each other: a shift of a patch would cost more than the border's pixels."""
    benchmark = benchmarks.read(write(tmp_path / "halves", sliding=sliding))
    found = measured(benchmark, encoder(2))
    first, second = (found["mean_iou", f"branch:{name}"] for name in ("first", "second"))
    assert first.value > 0.93
    assert found["pixel_accuracy", "branch:first"].value > 0.96
    assert second.value == pytest.approx(first.value / 3, abs=0.03), "it is right about blue alone"
    assert found["pointing", "branch:first"].value == 1
    assert found["pointing", "branch:second"].value == pytest.approx(2 / 8, abs=0.13)
    assert found["pointing", "mean"].chance == pytest.approx(0.5)
    assert found["pointing_by_another_text", "branch:first"].value == pytest.approx(0.5, abs=0.02), "no pixel is it"
    seen = (
        "short_1.5_stride_0.5"
        if sliding and sliding["stride"] == 0.5
        else "whole"
        if not sliding
        else "short_1_stride_0.7"
    )
    assert first.protocol.startswith(f"patches_{seen}_2_templates_")
    assert first.estimate.n == 4
    assert set(found) >= {("mean_iou_attended", "mean"), ("pointing_attended", "branch:second")}


def test_figures_are_those_counted_by_hand() -> None:
    rng = np.random.default_rng(0)
    truth_NYX, label_NYX = rng.integers(-1, 4, (5, 8, 9)), rng.integers(0, 4, (5, 8, 9))
    pairs = [segmentation.overlap(t, p, 5) for t, p in zip(truth_NYX, label_NYX, strict=True)]
    found = MeanIoU(*(np.stack(column) for column in zip(*pairs, strict=True)))
    counted = truth_NYX >= 0
    expected = []
    for label in range(4):
        truth, said = counted & (truth_NYX == label), counted & (label_NYX == label)
        expected.append((truth & said).sum() / (truth | said).sum())
    assert found.value == pytest.approx(np.mean(expected))
    assert np.isnan(found.by_class[4]), "a label that is nowhere counts nowhere"
    drawn_S = found.replicates(samples=400, seed=1)
    assert drawn_S.std() > 0
    assert abs(drawn_S.mean() - found.value) < 0.02
    assert np.array_equal(drawn_S, found.replicates(samples=400, seed=1))
    ratio = Ratio(np.array([1.0, 3.0]), np.array([2, 4]))
    assert (ratio.value, ratio.n) == (pytest.approx(4 / 6), 2)
    assert np.unique(ratio.replicates(samples=100, seed=0)) == pytest.approx([0.5, 4 / 6, 0.75])


def test_chance_is_what_labels_at_random_reach() -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(4, p=[0.7, 0.2, 0.1, 0.0], size=400_000)
    both_C, either_C = segmentation.overlap(truth, rng.integers(0, 4, truth.size), 4)
    assert segmentation.random_iou(np.bincount(truth, minlength=4)[None]) == pytest.approx(
        np.mean(both_C / either_C), abs=1e-3
    )


@pytest.mark.parametrize(("names", "at_once"), [(5, 1), (5, 90), (40, 42 * 7), (70, 10**6)])
def test_the_best_name_and_what_is_below_the_threshold(
    names: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many names are scored at a time."""
    monkeypatch.setattr(segmentation, "AT_ONCE", at_once)
    torch.manual_seed(names)
    score_TYX = torch.rand(names, 6, 7)
    place_T = np.arange(names) // 2
    likely_YX, best_YX = (5 * score_TYX).softmax(dim=0).max(dim=0)
    threshold = float(likely_YX.median())
    classes = tuple(f"c{n}" for n in range(names))
    regions = Regions(classes=classes, background=254, threshold=threshold, scale=5, first=1)
    index_TD = torch.arange(names)[:, None]
    found_YX = segmentation.predict(lambda some_TD: score_TYX[some_TD[:, 0]], index_TD, place_T, regions, 42)
    unlikely_YX = likely_YX < threshold
    sure_YX = ((likely_YX - threshold).abs() > 1e-6).numpy()
    expected_YX = np.where(unlikely_YX, names, place_T[best_YX])
    assert np.array_equal(found_YX[sure_YX], expected_YX[sure_YX])
    assert 0 < (found_YX == names).mean() < 1


def test_another_class_is_one_that_is_not_in_the_picture() -> None:
    assert segmentation.others(np.array([0, 1, 4]), 6).tolist() == [2, 2, 5]
    assert segmentation.others(np.array([3, 5]), 6).tolist() == [4, 0]
    assert segmentation.others(np.array([0, 1]), 2).tolist() == [1, 0]
    assert segmentation.others(np.array([], int), 3).tolist() == []


def test_points_that_tie_share_the_hit_and_unlabelled_ones_are_none() -> None:
    number_YX = np.array([[0, 1, 1], [0, 255, 0]])
    target_YX = number_YX == 1
    assert segmentation.point(torch.zeros(2, 3), number_YX, target_YX) == pytest.approx(2 / 5)
    assert segmentation.point(torch.tensor([[0.0, 1, 1], [1, 9, 0]]), number_YX, target_YX) == pytest.approx(2 / 3)


def test_numbers_of_masks_are_read_as_they_are_stored() -> None:
    regions = Regions(classes=("a", "b", "c"), first=2, further={"b": (7, 9)}, background=0, background_names=("sky",))
    number_YX = np.array([[0, 1, 2, 3, 4], [5, 7, 9, 255, 2]])
    assert masks.places(number_YX, regions).tolist() == [[3, OUTSIDE, 0, 1, 2], [OUTSIDE, 1, 1, OUTSIDE, 0]]
    assert regions.labels == ("a", "b", "c", "background")
    for mode in ("P", "L"):
        assert masks.read(Stored(mode, number_YX)).tolist() == number_YX.tolist()
    assert masks.read(Stored("I;16", number_YX * 200)).tolist() == (number_YX * 200).tolist()
    with pytest.raises(InputError, match=r"is in colour \(RGB\); expected a number a pixel"):
        masks.read(Stored("RGB", number_YX))


class Stored:
    """A picture of these numbers; a palette paints all of them the same."""

    def __init__(self, mode: str, number_YX: np.ndarray) -> None:
        image = Image.fromarray(number_YX.astype(np.uint16 if mode == "I;16" else np.uint8))
        if mode == "P":
            image.putpalette([200, 10, 10] * 256)
        buffer = io.BytesIO()
        (image.convert("RGB") if mode == "RGB" else image).save(buffer, "PNG")
        self.data = buffer.getvalue()

    def read(self) -> bytes:
        return self.data


def test_what_decides_a_figure_is_in_its_protocol() -> None:
    plain = {"classes": ("a", "b"), "templates": ("{}",)}
    changes: list[dict[str, Any]] = [
        {}, {"first": 1}, {"templates": ("a {}",)}, {"classes": ("a", "c")}, {"synonyms": {"a": ("x",)}},
        {"further": {"a": (9,)}}, {"sliding": Sliding()}, {"sliding": Sliding(stride=0.25)},
        {"background": 9, "threshold": 0.1}, {"background": 9, "threshold": 0.2},
        {"background": 9, "threshold": 0.1, "scale": 40}, {"background": 9, "background_names": ("sky", "sea")},
    ]  # fmt: skip
    protocols = [Regions(**{**plain, **change}).protocol for change in changes]
    assert len(set(protocols)) == len(changes)
    assert protocols[9].startswith("whole_threshold_0.2_scale_100_1_templates_")
    assert protocols[-1].startswith("whole_2_background_names_1_templates_")


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ({"background": 0}, "a background needs"),
        ({"threshold": 0.5}, "a background needs"),
        ({"background": 1, "threshold": 0.5}, "is the background and the class 'red'"),
        ({"synonyms": {"gold": ("x",)}}, "for 'gold', which is no class"),
        ({"first": 253}, "reach 255, unlabelled"),
    ],
)
def test_regions_that_do_not_fit_are_refused(tmp_path: Path, regions: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        benchmarks.check(write(tmp_path / "halves", **regions))


def test_masks_that_are_not_there_or_of_another_size(tmp_path: Path) -> None:
    folder = write(tmp_path / "halves")
    first = benchmarks.check(folder)
    Image.new("L", (5, 4)).save(folder / "masks" / "2.png")
    assert benchmarks.check(folder) != first
    with pytest.raises(InputError, match=r"2\.png has 5 × 4 pixels, but its picture has 96 × 48"):
        measured(benchmarks.read(folder), encoder())
    (folder / "masks" / "2.png").unlink()
    with pytest.raises(InputError, match=r"1 of 4 masks of .* are missing, the first is '2\.png'"):
        benchmarks.check(folder)


def test_a_benchmark_with_masks_is_written_and_read_again(tmp_path: Path) -> None:
    found = benchmarks.read(write(tmp_path / "halves", sliding={"stride": 0.5}, further={"red": [7]}))
    benchmark_writer.write(found, Location.of(tmp_path / "again"))
    again = benchmarks.read(tmp_path / "again")
    assert again.spec == found.spec
    assert [mask.read() for mask in again.masks] == [mask.read() for mask in found.masks]


def test_a_cropping_model_is_told_from_one_that_sees_all() -> None:
    assert input_side(PREPROCESS) == SIDE
    zoomed = image_transform(40, is_train=False)
    assert input_side(lambda image: zoomed(image)[:, 4:-4, 4:-4]) is None


def test_scores_are_laid_out_as_windows_lie() -> None:
    torch.manual_seed(0)
    layout = Layout.of((50, 100), 32, Sliding(short_side=1.25, stride=0.5))
    assert layout.size == (40, 80)
    assert layout.corners == tuple((top, left) for top in (0, 8) for left in (0, 16, 32, 48))
    patch_WRCD, text_TD = torch.rand(8, 4, 4, 6), torch.rand(3, 6)
    score_WTYX = F.interpolate((patch_WRCD @ text_TD.T).movedim(-1, 1), size=(32, 32), mode="bilinear")
    total, times = torch.zeros(3, 40, 80), torch.zeros(40, 80)
    for score_TYX, (top, left) in zip(score_WTYX, layout.corners, strict=True):
        total[:, top : top + 32, left : left + 32] += score_TYX
        times[top : top + 32, left : left + 32] += 1
    expected = F.interpolate((total / times)[None], size=(50, 100), mode="bilinear")[0]
    torch.testing.assert_close(layout.scores(patch_WRCD, text_TD, (50, 100)), expected)


def test_a_box_holds_all_that_counts_and_its_scores_are_those_of_the_whole() -> None:
    truth_YX = np.full((50, 100), OUTSIDE)
    truth_YX[7, 20], truth_YX[30, 61] = 2, 0
    box = segmentation.counted(truth_YX)
    assert box == (slice(7, 31), slice(20, 62))
    assert (truth_YX[box] != OUTSIDE).sum() == 2
    layout = Layout.of((50, 100), 32, Sliding())
    patch_WRCD, text_TD = torch.rand(len(layout.corners), 4, 4, 6), torch.rand(3, 6)
    whole = layout.scores(patch_WRCD, text_TD, (50, 100))
    torch.testing.assert_close(layout.scores(patch_WRCD, text_TD, (50, 100), box), whole[:, *box])
    nothing = segmentation.counted(np.full((5, 6), OUTSIDE))
    assert truth_YX[nothing].size == 1


def test_colours_of_as_many_labels_as_the_demo_has_can_be_told_apart() -> None:
    colours = np.array([overlays.colour(label, 31, background=True) for label in range(31)], float)
    apart_LL = np.linalg.norm(colours[:, None] - colours, axis=2) + 255 * np.eye(31)
    assert apart_LL.min() > 30


def test_the_report_shows_regions_and_names_a_model_without_them(tmp_path: Path) -> None:
    benchmark = benchmarks.read(write(tmp_path / "halves"))
    config = EvaluateConfig(device="cpu", bootstrap_samples=100)
    found = [
        measure.evaluate(asked, benchmark, config, Location.of(tmp_path / "cache"))
        for asked in (encoder(2), Encoder("blind", "b", "b", Blind(1), PREPROCESS, tokens, ("image",)))
    ]
    headline = table.headline(found)
    assert set(headline["colours"]["halves"]) == {"mean_iou colour", "pointing colour"}
    assert headline["blind"]["halves"] == {}
    page = report.render(found, config, "f" * 64)
    assert "blind has no patches that can be compared with texts" in page
    for heading in ("Zero-shot segmentation", "Pointing game", "Regions by map and branch", "Regions in pictures"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("by attended, second") == 4
    (shown,) = re.findall(r"<h3>colours</h3>\s*<div class=.scroll.><table class=.wide.>(.*?)</table>", page, re.DOTALL)
    stray = [re.findall("<td>(.*?)</td>", row)[-1] for row in re.findall("<tr>(.*?)</tr>", shown, re.DOTALL)[1:]]
    assert "hits by another text" in shown
    assert stray
    assert not any("figure" in cell for cell in stray), "the most hits by another text are not the best"
    assert report.render(found[1:], config, "f" * 64).count("<h2>Zero-shot segmentation</h2>") == 0
    nothing = measure.asked(measure.encoded(encoder(2), benchmark, config.model_copy(update={"dense_maps": ()}), None))
    assert nothing[0] == []
