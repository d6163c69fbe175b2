"""The suites that ship, each on a small data set of the same form: what they read, and what they say is missing."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from open_clip.transform import image_transform
from PIL import Image

from evaluation import benchmark_writer, benchmarks, masks, measure, suites
from evaluation.benchmarks import Benchmark
from evaluation.classes import Classes
from evaluation.config import EvaluateConfig, SuiteAt
from evaluation.contents import MissingDataError
from evaluation.encoder import Encoder
from pipeline import pictures
from pipeline.errors import ConfigError, InputError
from pipeline.storage import Location
from tests.evaluation import data_sets
from tests.evaluation.conftest import TINY
from training.model import HolisticCLIP, make_tokenizer

FEW = ("coco_karpathy_5k", "sugarcrepe", "winoground", "webdataset", "aro_vg_relation", "image_folder", "voc21")


def read(name: str, root: Path, **more: Any) -> Benchmark:
    root.mkdir(exist_ok=True)
    data_sets.WRITERS[name](root)
    return benchmarks.read(SuiteAt(suite=name, root=str(root), **more))


def test_every_suite_has_a_data_set_here() -> None:
    assert suites.names() == sorted(data_sets.WRITERS)


@pytest.mark.parametrize("name", suites.names())
def test_a_suite_without_its_files_says_what_is_wanted_where(name: str, tmp_path: Path) -> None:
    suite = suites.shipped(name)
    assert suite.name == name
    assert suite.about
    with pytest.raises(MissingDataError) as caught:
        benchmarks.check(SuiteAt(suite=name, root=str(tmp_path)))
    said = str(caught.value)
    assert said.startswith(f"the suite {name}: ")
    assert str(tmp_path) in said
    assert "\n" not in said
    with pytest.raises(MissingDataError, match="there is no such folder"):
        benchmarks.check(SuiteAt(suite=name, root=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("name", "images", "asked"),
    [
        ("coco_karpathy_5k", 4, {"all_captions": 20, "one_caption": 4}),
        ("coco_val2017_5k", 3, {"all_captions": 16, "first_5_captions": 15}),
        ("dci_full", 3, {"all_captions": 3}),
        ("docci_test", 2, {"all_captions": 2}),
        ("flickr30k_full", 3, {"all_captions": 15}),
        ("flickr30k_karpathy_1k", 4, {"all_captions": 20, "one_caption": 4}),
        ("flickr8k_karpathy_1k", 4, {"all_captions": 20, "one_caption": 4}),
        ("iiw_400", 3, {"all_captions": 3}),
        ("sharegpt4v_10k", 3, {"all_captions": 10000}),
        ("sharegpt4v_1k", 3, {"all_captions": 1000}),
        ("urban1k", 3, {"all_captions": 3}),
    ],
)
def test_captions_belong_to_their_images_and_protocols_say_which(
    name: str, images: int, asked: dict[str, int], tmp_path: Path
) -> None:
    found = read(name, tmp_path / "data")
    assert len(found.files) == images
    assert {one.protocol: len(one.texts) for one in found.queries} == asked
    for queries in found.queries:
        assert [text for text in queries.texts if text != text.strip()] == []
        order = queries.pair_image_P[np.argsort(queries.pair_text_P, kind="stable")]
        for text, image in zip(queries.texts, order, strict=True):
            number = "".join(c for c in found.files[image].split("/")[-1] if c.isdigit())[-1]
            assert number in text, "texts of the fixtures name their image by its last digit"


def test_coco_keeps_the_order_of_captions_and_the_names_of_files(tmp_path: Path) -> None:
    found = read("coco_val2017_5k", tmp_path)
    everything, first = found.queries
    assert found.files == ("000000000140.jpg", "000000000141.jpg", "000000000142.jpg")
    assert everything.texts[:2] == ("Caption 0 of image 0.", "Caption 1 of image 0.")
    assert everything.texts[10] == "One more of 1."
    assert "One more of 1." not in first.texts
    assert found.coco_ids == (140, 141, 142)
    assert everything.coco_ids[:2] == (1, 4)
    assert everything.coco_ids[10] == 15


def test_ids_are_taken_of_coco_alone(tmp_path: Path) -> None:
    coco, flickr = read("coco_karpathy_5k", tmp_path / "c"), read("flickr30k_karpathy_1k", tmp_path / "f")
    assert coco.coco_ids == (1, 2, 4, 5)
    assert [one.coco_ids[:6] for one in coco.queries] == [(10, 11, 12, 13, 14, 20), (10, 20, 40, 50)]
    assert (flickr.coco_ids, [one.coco_ids for one in flickr.queries]) == ((), [(), ()])


def test_long_texts_are_read_as_their_protocols_say(tmp_path: Path) -> None:
    urban = read("urban1k", tmp_path / "urban")
    assert urban.files == ("1.jpg", "2.jpg", "10.jpg")
    assert urban.queries[0].texts[2] == "A long caption of 10."
    assert read("dci_full", tmp_path / "dci").queries[0].texts[1] == "Short 1.\nExtra 1."
    assert read("flickr30k_full", tmp_path / "flickr").queries[0].texts[0] == 'A "caption" 0 , of 0'


@pytest.mark.parametrize("name", ["imagenet_val", "imagenet_v2", "imagenet_sketch"])
def test_imagenet_goes_by_number_since_two_names_occur_twice(name: str, tmp_path: Path) -> None:
    found = read(name, tmp_path / "data")
    (described,) = found.spec.classification.values()
    assert (len(described.classes), len(described.templates)) == (1000, 80)
    assert len(set(described.classes)) == 998
    assert described.classes[0] == "tench"
    assert described.templates[0] == "a bad photo of a {}."
    files = {label: file for file, label in zip(found.files, found.labels["class"].tolist(), strict=True)}
    assert files[10].endswith("ILSVRC2012_val_00000010.png"), "numbers of folders are in the order of numbers"
    assert described.protocol.startswith("zero_shot_80_templates_")


def test_templates_and_names_of_classes_decide_the_protocol() -> None:
    suite = suites.shipped("imagenet_val")
    layout = suite.layout.model_dump()
    protocols = {
        Classes(classes=classes, templates=templates).protocol
        for classes in (layout["classes"], ("tench", "shark"))
        for templates in (layout["templates"], ("a {}",))
    }
    assert len(protocols) == 4


def test_choices_of_right_and_wrong_texts(tmp_path: Path) -> None:
    found = read("sugarcrepe", tmp_path / "one")
    assert [choices.kind for choices in found.choices] == list(data_sets.SUGARCREPE)
    first = found.choices[0]
    assert first.image_Q.tolist() == [0, 0, 1, 1]
    assert (first.right[3], first.wrong[3]) == (("add_att right 3",), ("add_att wrong 3",))
    two = read("sugarcrepe_pp", tmp_path / "two").choices
    assert two[0].right[0] == ("replace_attribute right 0", "replace_attribute also right 0")


def test_pairs_of_pictures_and_texts(tmp_path: Path) -> None:
    (choices,) = read("winoground", tmp_path / "data").choices
    assert choices.pair_Q is not None
    assert choices.pair_Q.tolist() == [1, 1, 2, 2, 3, 3]
    assert choices.right[0] == choices.wrong[1]
    assert choices.right[1] == choices.wrong[0]
    assert choices.image_Q.tolist() == list(range(6))


@pytest.mark.parametrize(
    ("name", "images", "labels", "third", "left_out"),
    [
        ("voc20", 3, 20, 14, True),
        ("voc21", 3, 21, 14, False),
        ("context59", 3, 59, 14, True),
        ("ade20k_150", 2, 150, 7, True),
    ],
)
def test_regions_have_the_classes_that_their_numbers_mean(
    name: str, images: int, labels: int, third: int, left_out: bool, tmp_path: Path
) -> None:
    """Numbers of the last picture's mask: 0 around, 255 at the border, and one class more than its place from 1 on."""
    found = read(name, tmp_path / "data")
    assert len(found.files) == len(found.masks) == images
    (regions,) = found.spec.segmentation.values()
    assert len(regions.labels) == labels
    assert len(regions.templates) == 80
    number_YX = masks.read(found.masks[-1])
    assert set(np.unique(number_YX)) == {0, third + 1, 255}
    place_YX = masks.places(number_YX, regions)
    assert set(np.unique(place_YX)) == {masks.OUTSIDE, third} | (set() if left_out else {20})
    assert (place_YX == masks.OUTSIDE).sum() == (number_YX == 255).sum() + (number_YX == 0).sum() * left_out
    assert regions.protocol.startswith("short_1.5_stride_0.5_")
    first = found.files[0].split(".")[0]
    mask = next(path for path in (tmp_path / "data").rglob(f"{first}.png"))
    mask.rename(mask.with_suffix(".bak"))
    with pytest.raises(
        MissingDataError, match=rf"1 of {images} pictures are missing in .*, the first is '{first}.png'"
    ):
        benchmarks.check(SuiteAt(suite=name, root=str(tmp_path / "data")))


def test_voc_is_measured_in_windows_with_and_without_its_background(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    names = ("alt_text", "detail")
    model = HolisticCLIP({**TINY, "text_cfg": {**TINY["text_cfg"], "context_length": 24}}, names).eval()
    preprocess = image_transform(16, is_train=False)
    encoder = Encoder("run", "f", "w", model, preprocess, make_tokenizer(TINY), names)
    config = EvaluateConfig(device="cpu", readouts=("mean",), dense_maps=("patches",))
    for name, background in (("voc20", ""), ("voc21", "_threshold_0.1_scale_65_25_background_names")):
        found, _ = measure.asked(measure.encoded(encoder, read(name, tmp_path / name), config, None))
        assert [figure.metric for figure in found] == [
            "mean_iou",
            "pixel_accuracy",
            "pointing",
            "pointing_by_another_text",
        ]
        assert all(0 <= figure.value <= 1 for figure in found)
        protocol, digest = found[0].protocol.rsplit("_", 1)
        assert protocol == f"patches_short_1.5_stride_0.5{background}_80_templates"
        assert len(digest) == 8
        assert found[2].protocol == f"patches_short_1.5_stride_0.5_80_templates_{digest}"
        assert found[2].chance == pytest.approx(14 * 14 / (30 * 24 - 16 * 16 + 14 * 14))


def test_a_part_of_a_picture_is_a_picture(tmp_path: Path) -> None:
    """ARO asks about the part in which the relation is."""
    found = read("aro_vg_relation", tmp_path / "data")
    assert found.files == ("0.jpg@0,0,10,12", "1.jpg@2,0,12,12", "0.jpg@4,0,14,12")
    part = pictures.decode(found.image(2).read())[0]
    whole = pictures.decode((tmp_path / "data" / "images" / "0.jpg").read_bytes())[0]
    assert np.array_equal(part, whole.crop((4, 0, 14, 12)))
    assert found.copies == {}


@pytest.mark.parametrize("name", FEW)
def test_a_suite_written_as_a_folder_reads_the_same(name: str, tmp_path: Path) -> None:
    found = read(name, tmp_path / "data")
    benchmark_writer.write(found, Location.of(tmp_path / "folder"))
    again = benchmarks.read(str(tmp_path / "folder"))
    assert again.files == found.files
    assert again.coco_ids == found.coco_ids
    assert again.spec == found.spec
    assert {task: index_N.tolist() for task, index_N in again.labels.items()} == {
        task: index_N.tolist() for task, index_N in found.labels.items()
    }
    assert _plain(again.queries) == _plain(found.queries)
    assert _plain(again.choices) == _plain(found.choices)
    assert [mask.read() for mask in again.masks] == [mask.read() for mask in found.masks]
    for mine, its in zip(again.pictures, found.pictures, strict=True):
        assert mine.read() == its.read()
    with pytest.raises(InputError, match="is not empty"):
        benchmark_writer.write(found, Location.of(tmp_path / "folder"))


def _plain(several: Any) -> Any:
    return [
        {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in vars(one).items()}
        for one in several
    ]


def test_ids_in_a_folder_are_whole_numbers_of_all_or_are_left_out(tmp_path: Path, rewrite: Any) -> None:
    benchmark_writer.write(read("coco_karpathy_5k", tmp_path / "data"), Location.of(tmp_path / "folder"))
    labels = tmp_path / "folder" / "labels.parquet"
    rewrite(labels, lambda rows: rows[0].update(coco_id=None))
    assert benchmarks.read(str(tmp_path / "folder")).coco_ids == ()
    rewrite(labels, lambda rows: [row.update(coco_id="one") for row in rows])
    with pytest.raises(InputError, match="'coco_id' holds what is no whole number, expected whole numbers or null"):
        benchmarks.check(str(tmp_path / "folder"))


def test_classes_of_one_name_are_written_by_number(tmp_path: Path) -> None:
    data_sets.WRITERS["webdataset"](tmp_path / "data")
    (tmp_path / "data" / "classnames.txt").write_text("crane\nfish\ncrane\n")
    found = benchmarks.read(SuiteAt(suite="webdataset", root=str(tmp_path / "data")))
    benchmark_writer.write(found, Location.of(tmp_path / "folder"))
    assert benchmarks.read(str(tmp_path / "folder")).labels["class"].tolist() == [0, 1, 2, 0, 1, 2]


def test_pictures_may_lie_elsewhere_and_results_may_have_another_name(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    data_sets.WRITERS["sugarcrepe"](root)
    (root / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(MissingDataError, match=r"folder of pictures is missing: expected it at .*val2017 or"):
        benchmarks.check(SuiteAt(suite="sugarcrepe", root=str(root)))
    at = SuiteAt(suite="sugarcrepe", root=str(root), images=str(tmp_path / "elsewhere"), name="mine")
    assert benchmarks.read(at).name == "mine"
    shutil.move(tmp_path / "elsewhere", root / "val2017")
    assert benchmarks.read(f"sugarcrepe={root}").name == "sugarcrepe"


def test_identity_is_what_is_asked_and_not_where_it_lies(tmp_path: Path) -> None:
    first = read("coco_karpathy_5k", tmp_path / "a").digest
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert benchmarks.check(SuiteAt(suite="coco_karpathy_5k", root=str(tmp_path / "b"))) == first
    suite = suites.shipped("coco_karpathy_5k").model_dump(mode="json")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**suite, "captions": ["one_caption"], "root": "b"}))
    assert benchmarks.check(str(tmp_path / "mine.yaml")) != first
    Image.new("RGB", (9, 9)).save(tmp_path / "b" / "val2014" / "COCO_val2014_000000000001.jpg")
    assert benchmarks.check(SuiteAt(suite="coco_karpathy_5k", root=str(tmp_path / "b"))) != first


def test_copies_of_a_picture_are_right_too(tmp_path: Path) -> None:
    data_sets.WRITERS["urban1k"](tmp_path)
    shutil.copy(tmp_path / "image" / "1.jpg", tmp_path / "image" / "2.jpg")
    found = benchmarks.read(SuiteAt(suite="urban1k", root=str(tmp_path)))
    assert found.copies == {1: 0}
    assert len(found.queries[0].pair_text_P) == 5


def test_one_that_is_missing_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    data_sets.WRITERS["urban1k"](tmp_path / "data")
    there, gone = (
        SuiteAt(suite="urban1k", root=str(tmp_path / "data")),
        SuiteAt(suite="docci_test", root=str(tmp_path)),
    )
    identities, told = benchmarks.check_all([there, gone])
    assert identities == [benchmarks.check(there), benchmarks.MISSING]
    assert len(told) == 1
    assert "docci_descriptions.jsonlines" in told[0]
    assert "google.github.io/docci" in told[0]
    assert [one.name for one in benchmarks.read_all([there, gone])] == ["urban1k"]
    with pytest.raises(MissingDataError, match="the suite docci_test"):
        benchmarks.check_all([gone])


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        (SuiteAt(suite="coco_karpaty_5k", root="."), ConfigError, "did you mean 'coco_karpathy_5k'"),
        (SuiteAt(suite="nowhere.yaml"), ConfigError, "there is no suite .*nowhere.yaml"),
        (SuiteAt(suite="urban1k"), MissingDataError, "does not know where its files lie"),
        ("urban1k", MissingDataError, "does not know where its files lie"),
        ("urban2k=/data", ConfigError, "did you mean 'urban1k'"),
        (SuiteAt(suite="emoji", root=".", images="."), InputError, "leave out `images`"),
    ],
)
def test_entries_that_mean_nothing(entry: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        benchmarks.check(entry)


def test_the_fields_of_a_benchmark_are_all_compared() -> None:
    """So that a new part of a benchmark is not forgotten where folders are written."""
    names = {field.name for field in dataclasses.fields(Benchmark)}
    written = {"spec", "files", "pictures", "labels", "queries", "choices", "train", "masks", "coco_ids"}
    assert names == written | {"digest", "shown", "copies"}
