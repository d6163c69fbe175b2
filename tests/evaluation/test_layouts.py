"""Layouts: what files may hold, and what is said of files that hold something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.contents import Contents, MissingDataError
from evaluation.layouts.choices import ChoicesLayout
from evaluation.layouts.coco import CocoLayout
from evaluation.layouts.image_folder import ImageFolderLayout
from evaluation.layouts.karpathy import KarpathyLayout
from evaluation.layouts.listed import ListLayout
from evaluation.layouts.masks import MasksLayout
from evaluation.layouts.text_files import TextFilesLayout
from evaluation.layouts.webdataset import WebdatasetLayout
from evaluation.regions import Regions
from pipeline.errors import ConfigError, HolismError, InputError
from pipeline.storage import Location
from tests.evaluation import data_sets

COCO = CocoLayout(annotations=("c.json",), images=("val",))
KARPATHY = KarpathyLayout(annotations=("k.json",), images=(".",))
IMAGES = [{"id": 7, "file_name": "7.jpg"}]


def read(layout: Any, root: Path, split: str = "test") -> Contents:
    found: Contents = layout.read(Location.of(root), split)
    return found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "has no list of images"),
        ({"images": IMAGES}, "has no list of annotations"),
        ({"images": IMAGES, "annotations": []}, "lists no image with a caption"),
        ({"images": [{"id": 7}], "annotations": []}, "has no 'file_name'; it has 'id'"),
        ({"images": IMAGES, "annotations": [{"image_id": 8, "caption": "x"}]}, "a caption names the image 8"),
        ({"images": IMAGES, "annotations": [{"image_id": 7, "caption": {"en": "x"}}]}, "'caption' holds an object"),
        ({"images": IMAGES, "annotations": [{"image_id": 7, "caption": " "}]}, "'caption' holds no texts"),
        ({"images": IMAGES, "annotations": [{"image_id": 7, "caption": "x"}]}, "1 of 1 pictures are missing"),
    ],
)
def test_coco_files_that_do_not_fit(data: Any, said: str, tmp_path: Path) -> None:
    data_sets.write_json(tmp_path / "c.json", data)
    data_sets.picture(tmp_path / "val" / "other.jpg")
    with pytest.raises(InputError, match=said):
        read(COCO, tmp_path)


def test_no_json_and_no_split(tmp_path: Path) -> None:
    (tmp_path / "k.json").write_text("{'images': ")
    with pytest.raises(InputError, match=r"k\.json is not JSON"):
        read(KARPATHY, tmp_path)
    data_sets.write_json(tmp_path / "k.json", {"images": [{"split": "train"}, {"split": "val"}]})
    with pytest.raises(InputError, match="no images of the split 'test'; it has train, val"):
        read(KARPATHY, tmp_path)


def test_karpathy_reads_all_splits_where_all_are_wanted(tmp_path: Path) -> None:
    data_sets.karpathy(tmp_path, "k.json", "val2014", coco=True)
    with pytest.raises(MissingDataError, match="2 of 6 pictures are missing"):
        read(KARPATHY, tmp_path, "all")
    for number in (0, 3):
        data_sets.picture(tmp_path / "val2014" / f"COCO_val2014_{number:012}.jpg")
    assert len(read(KARPATHY, tmp_path, "all").files) == 6


ROWS = [
    {"image": "a.jpg", "caption": "one", "more": "two", "set": "x"},
    {"image": "b.jpg", "caption": "three", "more": "", "set": "y"},
    {"image": "a.jpg", "caption": "four", "more": "five", "set": "x"},
]


def write_rows(root: Path, kind: str) -> str:
    """The rows in a format; returns the file's name."""
    for name in "ab":
        data_sets.picture(root / f"{name}.jpg")
    name = f"list.{kind}"
    if kind == "csv":
        data_sets.a_list(root, ROWS)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), root / name)
    elif kind == "jsonl":
        data_sets.write_lines(root / name, ROWS)
    else:
        data_sets.write_json(root / name, ROWS if kind == "json" else {})
    return name


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "json"])
def test_a_list_is_read_the_same_from_every_format(kind: str, tmp_path: Path) -> None:
    layout = ListLayout(table=(write_rows(tmp_path, kind),), texts=("caption", "more"))
    found = read(layout, tmp_path)
    assert found.files == ("a.jpg", "b.jpg")
    assert found.captions == (("one", "two", "four", "five"), ("three",))
    some = layout.model_copy(update={"where": {"set": "x"}, "limit": 1, "join": " / "})
    assert read(some, tmp_path).captions == (("one / two",),)
    with pytest.raises(InputError, match="has no rows where set is z"):
        read(layout.model_copy(update={"where": {"set": "z"}}), tmp_path)
    with pytest.raises(InputError, match="titel"):
        read(layout.model_copy(update={"texts": ("titel",)}), tmp_path)


def test_a_column_may_hold_a_list_of_texts(tmp_path: Path) -> None:
    data_sets.picture(tmp_path / "sub" / "a.jpg")
    data_sets.write_lines(tmp_path / "l.jsonl", [{"image": "sub\\a.jpg", "captions": ["one", None, "two"]}])
    found = read(ListLayout(table=("l.jsonl",), texts=("captions",)), tmp_path)
    assert found.captions == (("one", "two"),)
    assert found.pictures[0].read() == (tmp_path / "sub" / "a.jpg").read_bytes()


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "json"])
def test_a_list_may_have_classes(kind: str, tmp_path: Path) -> None:
    table = write_rows(tmp_path, kind)
    found = read(ListLayout(table=(table,), texts=(), labels={"kind": {"column": "set"}}), tmp_path)  # type: ignore[dict-item]
    assert found.captions == ()
    assert found.classification["kind"].classes == ("x", "y")
    assert found.labels["kind"].tolist() == [0, 1]
    named = {"kind": {"column": "set", "classes": ["y", "z", "x"], "templates": ["{}!"]}}
    both = read(ListLayout(table=(table,), labels=named), tmp_path)  # type: ignore[arg-type]
    assert both.labels["kind"].tolist() == [2, 0]
    assert both.captions == (("one", "four"), ("three",))
    for columns, said in (
        ({"kind": {"column": "set", "classes": ["x", "z"]}}, "'y' in column 'set' is no class of the suite"),
        ({"kind": {"column": "caption"}}, "the picture 'a.jpg' has two classes of 'kind'"),
    ):
        with pytest.raises(InputError, match=said):
            read(ListLayout(table=(table,), labels=columns), tmp_path)  # type: ignore[arg-type]


def test_numbers_in_a_column_are_places_of_classes(tmp_path: Path) -> None:
    data_sets.picture(tmp_path / "a.jpg")
    data_sets.picture(tmp_path / "b.jpg")
    data_sets.write_json(tmp_path / "l.json", [{"image": "a.jpg", "y": 1}, {"image": "b.jpg", "y": None}])
    labels = {"kind": {"column": "y", "classes": ["cat", "dog"]}}
    found = read(ListLayout(table=("l.json",), texts=(), labels=labels), tmp_path)  # type: ignore[arg-type]
    assert found.labels["kind"].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": None, "caption": "x"}, "names no picture"),
        ({"image": "a.jpg", "caption": ""}, "the picture 'a.jpg' has no caption"),
        ({"image": "a.jpg", "caption": {"en": "x"}}, "an object"),
        ({"image": ["a.jpg"], "caption": "x"}, "holds"),
        ([1], "holds|JSON"),
    ],
)
@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_rows_that_do_not_fit_are_named(kind: str, row: Any, said: str, tmp_path: Path) -> None:
    data_sets.picture(tmp_path / "a.jpg")
    good = {"image": "a.jpg", "caption": "fine"} if not isinstance(row, dict) or row["image"] != "a.jpg" else None
    rows = [row] if good is None else [good, row]
    if kind == "json":
        data_sets.write_json(tmp_path / "l.json", rows)
    else:
        data_sets.write_lines(tmp_path / "l.jsonl", rows)
    with pytest.raises(InputError, match=said):
        read(ListLayout(table=(f"l.{kind}",)), tmp_path)


def test_the_first_rows_of_a_long_file_are_all_that_is_read(tmp_path: Path) -> None:
    """What follows them may be damaged: nobody looks."""
    data_sets.picture(tmp_path / "a.jpg")
    rows = [{"image": "a.jpg", "caption": f"é {number} " + "x" * 3000} for number in range(800)]
    (tmp_path / "l.json").write_text(json.dumps(rows, ensure_ascii=False)[:-1] + ", {broken", encoding="utf8")
    layout = ListLayout(table=("l.json",), limit=700)
    assert len(read(layout, tmp_path).captions[0]) == 700
    for limit in (801, None):
        with pytest.raises(InputError, match="is not JSON"):
            read(layout.model_copy(update={"limit": limit}), tmp_path)


def test_texts_that_are_missing_or_empty(tmp_path: Path) -> None:
    layout = TextFilesLayout(images=("image",), texts=("caption",))
    data_sets.urban1k(tmp_path)
    assert read(layout, tmp_path).captions[0] == ("A long caption of 1.\nA second line.",)
    (tmp_path / "caption" / "2.txt").write_text("\n")
    with pytest.raises(InputError, match=r"2\.jpg' has no caption"):
        read(layout, tmp_path)
    (tmp_path / "caption" / "2.txt").unlink()
    with pytest.raises(MissingDataError, match=r"expected it at .*caption/2\.txt"):
        read(layout, tmp_path)


def test_folders_are_classes(tmp_path: Path) -> None:
    data_sets.image_folder(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    found = read(ImageFolderLayout(), tmp_path)
    assert found.classification["class"].classes == ("cat", "polar bear")
    assert found.labels["class"].tolist() == [0, 0, 1]
    named = ImageFolderLayout(classes={"cat": "a tabby", "polar_bear": "an ice bear"}, task="animal")
    assert read(named, tmp_path).classification["animal"].classes == ("a tabby", "an ice bear")
    for classes, said in (
        (("one", "two", "three"), "has 2 folders, but the suite names 3 classes"),
        ({"cat": "a tabby"}, "the folder 'polar_bear' .* is not among the suite's classes"),
    ):
        with pytest.raises(InputError, match=said):
            read(ImageFolderLayout(classes=classes), tmp_path)
    with pytest.raises(ConfigError, match="no set of classes 'imagenet22k'; expected a list, or one of imagenet"):
        ImageFolderLayout(classes="imagenet22k")


def test_a_webdataset_of_classes_and_one_of_captions(tmp_path: Path) -> None:
    data_sets.webdataset(tmp_path / "a")
    found = read(WebdatasetLayout(), tmp_path / "a")
    described = found.classification["class"]
    assert described.classes == ("red crane", "fish", "blue crane")
    assert described.templates == ("a photo of a {}.", "art of the {}.")
    assert found.labels["class"].tolist() == [0, 1, 2, 0, 1, 2]
    assert found.files[:4] == ("0/s0000000.png", "0/s0000001.png", "0/s0000002.png", "1/s0000003.png")
    assert [picture.read() for picture in found.pictures] == [data_sets.encoded(number) for number in range(6)]
    other = WebdatasetLayout(templates=("{} only",))
    assert read(other, tmp_path / "a").classification["class"].templates == ("{} only",)

    data_sets.webdataset(tmp_path / "b", retrieval=True, split="train")
    found = read(WebdatasetLayout(), tmp_path / "b", "train")
    assert found.captions[5] == ("caption 5", "second caption 5")
    assert found.classification == {}


def test_webdatasets_that_lack_something(tmp_path: Path) -> None:
    data_sets.webdataset(tmp_path)
    for file, text, said in (
        ("classnames.txt", "red\nfish\n", "has the class '2', expected a number from 0 to 1"),
        ("classnames.txt", "red\n", r"classes' is .* a list of at least 2 items"),
        ("dataset_type.txt", "multilabel\n", "says 'multilabel'; expected classification or retrieval"),
        ("test/nshards.txt", "many\n", "says 'many', expected a number of tars"),
        ("test/nshards.txt", "3\n", r"a tar is missing: expected it at .*/test/2\.tar"),
    ):
        before = (tmp_path / file).read_bytes() if (tmp_path / file).exists() else None
        (tmp_path / file).write_text(text)
        with pytest.raises(HolismError, match=said):
            read(WebdatasetLayout(), tmp_path)
        (tmp_path / file).unlink()
        if before is not None:
            (tmp_path / file).write_bytes(before)
    (tmp_path / "zeroshot_classification_templates.txt").unlink()
    with pytest.raises(MissingDataError, match="the list of templates is missing"):
        read(WebdatasetLayout(), tmp_path)
    tar = tmp_path / "test" / "1.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"1\.tar"):
        read(WebdatasetLayout(templates=("{}",)), tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": "a.jpg", "right": "x", "wrong": []}, "lacks a text to choose from"),
        ({"image": None, "right": "x", "wrong": "y"}, "names no picture"),
        ({"image": "a.jpg", "right": "x"}, "has no 'wrong'"),
        ({"image": "b.jpg", "right": "x", "wrong": "y"}, "1 of 1 pictures are missing"),
    ],
)
def test_choices_that_do_not_fit(row: Any, said: str, tmp_path: Path) -> None:
    data_sets.picture(tmp_path / "a.jpg")
    data_sets.write_json(tmp_path / "c.json", [row])
    layout = ChoicesLayout(tables={"kind": ("c.json",)}, right=("right",), wrong=("wrong",))
    with pytest.raises(InputError, match=said):
        read(layout, tmp_path)


def test_choices_say_which_columns_hold_what() -> None:
    for columns in (
        {},
        {"right": ["a"]},
        {"paired_images": ["a", "b"]},
        {"right": ["a"], "wrong": ["b"], "paired_texts": ["a", "b"], "paired_images": ["c", "d"]},
    ):
        with pytest.raises(ValueError, match=r"columns of right and wrong texts|come together"):
            ChoicesLayout(tables={"kind": ("c.json",)}, **columns)  # type: ignore[arg-type]


def test_pictures_with_masks_that_do_not_fit(tmp_path: Path) -> None:
    layout = MasksLayout(listed=("{split}.txt",), segmentation={"region": Regions(classes=("a", "b"))})
    data_sets.masks(tmp_path / "JPEGImages", tmp_path / "SegmentationClass", ["x", "y"], 2)
    with pytest.raises(MissingDataError, match=r"the list of names is missing: expected it at .*/test\.txt"):
        read(layout, tmp_path)
    for content, said in ((b"\n \n", "lists no names"), (b"\xff\xfex", "is not text")):
        (tmp_path / "test.txt").write_bytes(content)
        with pytest.raises(InputError, match=said):
            read(layout, tmp_path)
    (tmp_path / "test.txt").write_text("\ufeffy 1\n\nx -1\ny 1\n")
    assert read(layout, tmp_path).files == ("y.jpg", "x.jpg")
    unlisted = layout.model_copy(update={"listed": None})
    assert read(unlisted, tmp_path).files == ("x.jpg", "y.jpg")
    (tmp_path / "JPEGImages" / "x.jpg").unlink()
    for either in (layout, unlisted):
        with pytest.raises(MissingDataError, match=r"the first is 'x\.jpg'"):
            read(either, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match="there are no masks"):
        read(unlisted.model_copy(update={"images": ("empty",), "masks": ("empty",)}), tmp_path)
