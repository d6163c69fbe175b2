"""The study's emoji: what training sees, what is held out for good, and what is asked of the rest."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.study.emoji import concepts, families, is_held_out, split, write_emoji
from evaluation import benchmark_writer, benchmarks, fetching
from evaluation.benchmarks import Benchmark
from evaluation.fetching import emoji, stamps
from tests.evaluation import data_sets
from tests.evaluation.test_fetching import stamp_files
from training.slots import named_slot

GROUPS = ("smileys", "people", "skins", "nature", "flags")
SUBGROUPS = ("smiling", "cooks", "fantasy", "reptiles", "country flags")
# Code, label, tags, group, subgroup. "grinning face" and elves are held out.
EMOJI = (
    ("1F600", "grinning face", ["cheerful", "face"], 0, 0),
    ("1F603", "smiling face", ["happy", "joy", "Face", "nice", "yay"], 0, 0),
    ("1F468-200D-1F373", "man cook", ["chef"], 1, 1),
    ("1F469-200D-1F373", "woman cook", ["chef"], 1, 1),
    ("1F9DD-200D-2642", "man elf", ["magical"], 1, 2),
    ("1F9DD", "elf", ["elves", "magical"], 1, 2),
    ("1F40A", "crocodile", [], 3, 3),
    ("1F1F3-1F1F4", "flag: Norway", ["NO", "flag"], 4, 4),
    ("1F1F8-1F1EF", "flag: Svalbard & Jan Mayen", ["SJ", "flag"], 4, 4),
)
HELD_OUT = ["grinning face", "man elf", "elf"]


def emoji_packages(root: Path) -> list[Path]:
    """All hands draw all of these, but Fluent no crocodile; the two flags look alike."""
    fields = ("hexcode", "label", "tags", "group", "subgroup")
    data_sets.write_json(root / "texts" / "en" / "data.json", [dict(zip(fields, row, strict=True)) for row in EMOJI])
    names = {
        kind: [{"message": name, "order": number} for number, name in enumerate(names)]
        for kind, names in (("groups", GROUPS), ("subgroups", SUBGROUPS))
    }
    data_sets.write_json(root / "texts" / "en" / "messages.json", names)
    for number, (code, label, *_) in enumerate(EMOJI):
        look = 7 if label.startswith("flag") else number
        data_sets.picture(root / "google" / "img" / "google" / "64" / f"{code.lower()}.png", look)
        data_sets.picture(root / "twitter" / "img" / "twitter" / "64" / f"{code.lower()}.png", 20 + look)
        if label != "crocodile":
            data_sets.picture(root / "fluent" / "assets" / f"{code.lower()}.png", 40 + look)
    return [root / name for name in ("texts", "google", "twitter", "fluent")]


def clear_picture(path: Path) -> None:
    """Half of it is transparent, over black."""
    layer = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    layer.paste((200, 30, 30, 255), (0, 0, 32, 64))
    layer.save(path)


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of suites as `holism fetch emoji stamps` leaves it."""
    monkeypatch.setenv("HOLISM_CACHE", str(tmp_path / "cache"))
    folders = emoji_packages(tmp_path / "packages")
    clear_picture(folders[1] / "img" / "google" / "64" / "1f603.png")
    benchmark_writer.write(emoji.build(folders, tmp_path), fetching.cached("emoji"))
    tux_paint = stamp_files(tmp_path / "tuxpaint")
    benchmark_writer.write(stamps.build([tux_paint], tmp_path), fetching.cached("stamps"))
    return tmp_path / "cache" / "suites"


@pytest.fixture
def written(suites: Path, tmp_path: Path) -> Path:
    write_emoji(tmp_path / "out")
    return tmp_path / "out"


def training(folder: Path) -> tuple[dict[str, Image.Image], dict[str, str], list[dict[str, Any]]]:
    """Pictures and alt texts by key, and captions."""
    shown, said = dict[str, Image.Image](), dict[str, str]()
    with tarfile.open(folder / "00000.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            key, suffix = member.name.split(".")
            if suffix == "jpg":
                shown[key] = Image.open(io.BytesIO(file.read()))
            else:
                said[key] = file.read().decode()
    return shown, said, pq.read_table(folder / "00000.parquet").to_pylist()


def asked(found: Benchmark, perspective: str) -> dict[str, set[str]]:
    """The files that each text is true for."""
    (queries,) = [one for one in found.queries if one.perspective == perspective]
    right: dict[str, set[str]] = {}
    for text, picture in zip(queries.pair_text_P.tolist(), queries.pair_image_P.tolist(), strict=True):
        right.setdefault(queries.texts[text], set()).add(found.files[picture])
    return right


def test_training_has_two_hands_and_the_words_of_the_data(written: Path) -> None:
    shown, said, captions = training(written / "train")
    labels = [label for _, label, *_ in EMOJI if label not in HELD_OUT]
    assert sorted(said.values()) == sorted(2 * labels)
    assert {key.split("-")[0] for key in shown} == {"noto", "twemoji"}
    assert {(picture.size, picture.mode) for picture in shown.values()} == {((96, 96), "RGB")}
    right_YXC = np.asarray(shown["noto-1f603"])[:, 60:]
    assert right_YXC.min() > 245, "white where a drawing is transparent"
    of_smiling = [row for row in captions if row["key"] == "twemoji-1f603"]
    sentence = "An emoji called smiling face, listed under smileys (smiling), tagged happy, joy and nice."
    assert [(row["perspective"], row["granularity"], row["text"]) for row in of_smiling] == [
        ("tags", "word", "happy, joy, Face, nice, yay"),
        ("subgroup", "phrase", "smiling"),
        ("group", "phrase", "smileys"),
        ("summary", "sentence", sentence),
    ]
    crocodile = {row["perspective"]: row["text"] for row in captions if row["key"] == "noto-1f40a"}
    assert "tags" not in crocodile
    assert crocodile["summary"] == "An emoji called crocodile, listed under nature (reptiles)."


def test_the_new_hand_drew_what_training_knows(written: Path) -> None:
    found = benchmarks.read(str(written / "hand"))
    assert found.name == "hand"
    assert found.files == (
        "fluent/1f603.png", "fluent/1f468-200d-1f373.png", "fluent/1f469-200d-1f373.png",
        "fluent/1f1f3-1f1f4.png", "fluent/1f1f8-1f1ef.png",
    )  # fmt: skip
    assert asked(found, "tags")["chef"] == {"fluent/1f468-200d-1f373.png", "fluent/1f469-200d-1f373.png"}
    slots = {(slot.perspective, slot.granularity) for slot in map(named_slot, ("tags", "sentence"))}
    _, _, captions = training(written / "train")
    assert slots <= {(row["perspective"], given) for row in captions for given in (row["granularity"], None)}
    assert [one.perspective for one in found.queries] == ["alt_text", "tags", "sentence"]
    sentences = {row["text"] for row in captions if row["perspective"] == "summary"}
    assert set(asked(found, "sentence")) < sentences, "the crocodile's is not asked"


def test_held_out_concepts_are_asked_in_all_hands(written: Path) -> None:
    found = benchmarks.read(str(written / "concepts"))
    assert len(found.files) == 9
    assert asked(found, "alt_text") == {
        label: {f"{hand}/{code.lower()}.png" for hand in ("noto", "twemoji", "fluent")}
        for code, label, *_ in EMOJI
        if label in HELD_OUT
    }
    classes = found.spec.classification["subgroup"].classes
    assert classes == ("smiling", "cooks", "reptiles", "country flags"), "training has no elf"
    assert found.labels["subgroup"].tolist() == [0, -1, -1] * 3
    assert found.labels["group"].tolist() == [0, 1, 1] * 3
    assert found.spec.classification["group"].templates == emoji.TEMPLATES


def test_stamps_are_as_they_were_fetched(written: Path) -> None:
    assert benchmarks.check(str(written / "stamps")) == benchmarks.check("stamps")


def test_what_is_there_is_not_written_again(written: Path, suites: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    suites.rename(suites.with_name("gone"))
    write_emoji(written)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    suites.with_name("gone").rename(suites)
    (written / "hand").rename(written / "hand.part")  # as if somebody had stopped it
    (written / "hand.part" / "benchmark.yaml").unlink()
    write_emoji(written)
    assert benchmarks.read(str(written / "hand")).name == "hand"
    assert not (written / "hand.part").exists()
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if "train" in path.parts)


def test_what_is_held_out_never_changes(suites: Path) -> None:
    codes = ("1f600", "1f603", "1f60d", "2764", "1f692", "1f373", "1f1f3-1f1f4", "1f40a")
    assert [code for code in codes if is_held_out(code)] == ["1f600", "1f60d"]
    trained, held_out = split(concepts(fetching.cached("emoji")))
    assert [concept.label for concept in held_out] == HELD_OUT
    assert len(trained) + len(held_out) == len(EMOJI)


def test_a_family_goes_by_one_code(suites: Path) -> None:
    """Who does something does not part concepts, nor does a second name of a drawing."""
    found = concepts(fetching.cached("emoji"))
    of_label = {concept.label: family for concept, family in zip(found, families(found), strict=True)}
    assert of_label["man cook"] == of_label["woman cook"] == "1f468-200d-1f373"
    assert of_label["flag: Norway"] == of_label["flag: Svalbard & Jan Mayen"] == "1f1f3-1f1f4"
    assert len(set(of_label.values())) == len(EMOJI) - 3
