"""Small data sets in the forms in which people have the big ones: for each suite a function that writes its files."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

Writer = Callable[[Path], Any]


def picture(path: Path, number: int = 0, size: tuple[int, int] = (24, 24)) -> None:
    """A picture unlike those of other numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(number, size, path.suffix))


def masks(images: Path, folder: Path, names: Sequence[str], classes: int) -> None:
    """Pictures with masks by a palette: numbers from 0 (background) on, and an unlabelled border, as in VOC."""
    for number, name in enumerate(names):
        picture(images / f"{name}.jpg", number, (30, 24))
        mask = Image.new("P", (30, 24), 0)
        mask.putpalette([value % 256 for index in range(256) for value in (37 * index, 91 * index, 11 * index)])
        mask.paste(255, (3, 3, 19, 19))
        mask.paste(1 + (7 * number) % classes, (4, 4, 18, 18))
        folder.mkdir(parents=True, exist_ok=True)
        mask.save(folder / f"{name}.png")


def voc(root: Path, year: int = 2012, kind: str = "", classes: int = 20) -> None:
    """As the archive unpacks: pictures of other tasks lie with those of the split."""
    names = [f"{year}_{number:06}" for number in (32, 39, 63)]
    at = root / "VOCdevkit" / f"VOC{year}"
    masks(at / "JPEGImages", at / f"SegmentationClass{kind}", names, classes)
    picture(at / "JPEGImages" / f"{year}_000001.jpg", 5)
    listed = at / "ImageSets" / f"Segmentation{kind}"
    listed.mkdir(parents=True)
    (listed / "val.txt").write_text("".join(f"{name}\n" for name in names))
    (listed / "train.txt").write_text(f"{year}_000001\n")


def ade20k(root: Path) -> None:
    top = root / "ADEChallengeData2016"
    names = [f"ADE_val_{number:08}" for number in (1, 2)]
    masks(top / "images" / "validation", top / "annotations" / "validation", names, 150)
    picture(top / "images" / "training" / "ADE_train_00000001.jpg")


def encoded(number: int, size: tuple[int, int] = (24, 24), suffix: str = ".png") -> bytes:
    image = Image.new("RGB", size, (40 + 37 * number % 200, 250 - 53 * number % 200, 90))
    image.paste((10, 20, 200), (number % 8, 2, number % 8 + 6, 12))
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if suffix.lower() == ".png" else "JPEG")
    return buffer.getvalue()


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def coco_val2017(root: Path) -> None:
    """Three images; captions of all lie mixed, as in the real file. The second image has six."""
    images = [{"id": 140 + n, "file_name": f"{140 + n:012}.jpg", "height": 24, "width": 24} for n in range(3)]
    captions = [(number, f"Caption {turn} of image {number}. ") for turn in range(5) for number in (2, 0, 1)]
    annotations = [
        {"image_id": 140 + image, "id": n, "caption": text}
        for n, (image, text) in enumerate([*captions, (1, "One more of 1.")])
    ]
    write_json(
        root / "annotations" / "captions_val2017.json", {"info": {}, "images": images, "annotations": annotations}
    )
    for number, image in enumerate(images):
        picture(root / "val2017" / str(image["file_name"]), number)


def karpathy(root: Path, name: str, folder: str, *, coco: bool) -> None:
    """Four images of the test split, and one each of train and restval whose pictures are not there."""
    images = []
    for number, split in enumerate(["train", "test", "test", "restval", "test", "test"]):
        file = f"COCO_val2014_{number:012}.jpg" if coco else f"{1000092790 + number}.jpg"
        sentences = [
            {"raw": f"Words {n} on image {number} .", "tokens": ["words"], "sentid": 10 * number + n} for n in range(5)
        ]
        where = {"filepath": "val2014", "cocoid": number} if coco else {}
        images.append({**where, "filename": file, "imgid": number, "split": split, "sentences": sentences})
        if split == "test":
            picture(root / folder / file, number)
    write_json(root / name, {"images": images, "dataset": "coco" if coco else "flickr"})


def flickr30k_tokens(root: Path) -> None:
    """Tab-separated, without a header; a caption has quotes in it."""
    lines = [f'100009279{n}.jpg#{turn}\tA "caption" {turn} , of {n}' for n in range(3) for turn in range(5)]
    (root / "results_20130124.token").write_text("\n".join(lines) + "\n")
    for number in range(3):
        picture(root / "flickr30k-images" / f"100009279{number}.jpg", number)


def imagenet(root: Path, folders: Sequence[str], top: str) -> None:
    """A picture for each of the thousand classes, byte for byte the same within a hundred."""
    data = [encoded(number, (8, 8)) for number in range(10)]
    for number, folder in enumerate(folders):
        path = root / top / folder / f"ILSVRC2012_val_{number:08}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[number % 10])


def wordnet_ids() -> list[str]:
    return [f"n{1440764 + 7 * number:08}" for number in range(1000)]


def urban1k(root: Path) -> None:
    for number in (1, 2, 10):
        picture(root / "image" / f"{number}.jpg", number)
        path = root / "caption" / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"A long caption of {number}.\nA second line.\n")


def docci(root: Path) -> None:
    rows = [
        {
            "split": split,
            "example_id": f"{split}_{n:05}",
            "image_file": f"{split}_{n:05}.jpg",
            "description": f"It is {n}.",
        }
        for n, split in enumerate(["train", "test", "test", "qual_dev"])
    ]
    write_lines(root / "docci_descriptions.jsonlines", rows)
    for number, row in enumerate(rows):
        picture(root / "images" / str(row["image_file"]), number)


def dci(root: Path) -> None:
    """A JSON file for each picture, with masks that are not looked at."""
    for number in range(3):
        row = {"image": f"sa_{number}.jpg", "short_caption": f"Short {number}.", "extra_caption": f"Extra {number}.",
               "mask_data": {"0": {"mask": "aGVsbG8="}}}  # fmt: skip
        write_json(root / "densely_captioned_images" / "annotations" / f"sa_{number}.json", row)
        picture(root / "densely_captioned_images" / "photos" / f"sa_{number}.jpg", number)


def iiw(root: Path) -> None:
    write_lines(
        root / "IIW-400" / "data.jsonl", [{"image/key": f"aar_test_{n}", "IIW": f"Words on {n}."} for n in range(3)]
    )
    for number in range(3):
        picture(root / "docci_aar" / f"aar_test_{number}.jpg", number)


def sharegpt4v(root: Path) -> None:
    """More rows than the suites read; those beyond have no picture. Over a megabyte, so that it is read in pieces."""
    rows = [
        {"id": str(n), "image": f"sam/images/sa_{n % 3}.jpg", "conversations": [
            {"from": "human", "value": "<image>\nDescribe."},
            {"from": "gpt", "value": f"Café {n} of {n % 3}, {'long ' * 20}"}]}
        for n in range(10050)
    ]  # fmt: skip
    rows[10001]["image"] = "sam/images/nowhere.jpg"
    write_json(root / "share-captioner_coco_lcs_sam_1246k_1107.json", rows)
    for number in range(3):
        picture(root / "sam" / "images" / f"sa_{number}.jpg", number)


def sugarcrepe(root: Path, kinds: Sequence[str], *, second: bool = False) -> None:
    """An object of objects in each file; two questions of a kind share a picture."""
    for kind in kinds:
        rows = {
            str(n): {"filename": f"{n // 2:012}.jpg",
                     "caption": f"{kind} right {n}", "negative_caption": f"{kind} wrong {n}",
                     **({"caption2": f"{kind} also right {n}"} if second else {})}
            for n in range(4)
        }  # fmt: skip
        write_json(root / f"{kind}.json", rows)
    for number in range(2):
        picture(root / "val2017" / f"{number:012}.jpg", number)


def aro(root: Path, kind: str) -> None:
    rows = [
        {"image_id": n, "image_path": f"{n % 2}.jpg", "bbox_x": 2 * n, "bbox_y": 0, "bbox_w": 10, "bbox_h": 12,
         "true_caption": f"the horse eats grass {n}", "false_caption": f"the grass eats horse {n}"}
        for n in range(3)
    ]  # fmt: skip
    write_json(root / f"visual_genome_{kind}.json", rows)
    for number in range(2):
        picture(root / "images" / f"{number}.jpg", number)


def winoground(root: Path) -> None:
    write_lines(
        root / "examples.jsonl",
        [{"id": n, "image_0": f"ex_{n}_img_0", "image_1": f"ex_{n}_img_1",
          "caption_0": f"a {n} on b", "caption_1": f"b on a {n}"}
         for n in range(3)],
    )  # fmt: skip
    for number in range(3):
        for side in (0, 1):
            picture(root / "images" / f"ex_{number}_img_{side}.png", 2 * number + side)


def webdataset(root: Path, *, retrieval: bool = False, split: str = "test", per_tar: int = 3, tars: int = 2) -> None:
    """As CLIP_benchmark's own converter writes it; labels are texts of numbers, captions a line each."""
    (root / split).mkdir(parents=True)
    for shard in range(tars):
        with tarfile.open(root / split / f"{shard}.tar", "w") as tar:
            for index in range(per_tar):
                number = shard * per_tar + index
                beside = (
                    {"txt": f"caption {number}\nsecond caption {number}\n"} if retrieval else {"cls": str(number % 3)}
                )
                _add(tar, f"s{number:07}.png", encoded(number))
                for suffix, text in beside.items():
                    _add(tar, f"s{number:07}.{suffix}", text.encode())
    (root / split / "nshards.txt").write_text(f"{tars}\n")
    if retrieval:
        (root / "dataset_type.txt").write_text("retrieval\n")
    else:
        (root / "classnames.txt").write_text("red crane\nfish\nblue crane\n")
        (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\nart of the {c}.\n")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def image_folder(root: Path) -> None:
    for number, name in enumerate(["polar_bear", "cat", "cat"]):
        picture(root / name / f"{number}.png", number)


def a_list(root: Path, rows: Sequence[dict[str, str]]) -> None:
    """A csv with a header."""
    with open(root / "list.csv", "w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
SUGARCREPE_PP = ("replace_attribute", "replace_object", "replace_relation", "swap_atribute", "swap_object")
WRITERS: dict[str, Writer] = {
    "ade20k_150": ade20k,
    "aro_vg_attribution": lambda root: aro(root, "attribution"),
    "aro_vg_relation": lambda root: aro(root, "relation"),
    "coco_karpathy_5k": lambda root: karpathy(root, "dataset_coco.json", "val2014", coco=True),
    "coco_val2017_5k": coco_val2017,
    "context59": lambda root: voc(root, 2010, "Context", 59),
    "dci_full": dci,
    "docci_test": docci,
    "flickr30k_full": flickr30k_tokens,
    "flickr30k_karpathy_1k": lambda root: karpathy(root, "dataset_flickr30k.json", "flickr30k-images", coco=False),
    "flickr8k_karpathy_1k": lambda root: karpathy(root, "dataset_flickr8k.json", "Flicker8k_Dataset", coco=False),
    "iiw_400": iiw,
    "image_folder": image_folder,
    "imagenet_sketch": lambda root: imagenet(root, wordnet_ids(), "sketch"),
    "imagenet_v2": lambda root: imagenet(
        root, [str(number) for number in range(1000)], "imagenetv2-matched-frequency-format-val"
    ),
    "imagenet_val": lambda root: imagenet(root, wordnet_ids(), "val"),
    "sharegpt4v_10k": sharegpt4v,
    "sharegpt4v_1k": sharegpt4v,
    "sugarcrepe": lambda root: sugarcrepe(root, SUGARCREPE),
    "sugarcrepe_pp": lambda root: sugarcrepe(root, SUGARCREPE_PP, second=True),
    "urban1k": urban1k,
    "voc20": voc,
    "voc21": voc,
    "webdataset": webdataset,
    "winoground": winoground,
}
