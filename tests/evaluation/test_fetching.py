"""Suites of package registries, from packages of the same form: what is made of them, what is said without."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation import benchmark_writer, benchmarks, fetching, masks
from evaluation.config import SuiteAt
from evaluation.contents import MissingDataError
from evaluation.fetching import emoji, emoji_composites, fashion_mnist, fetch, stamps
from flows.cli import main
from pipeline import pictures
from pipeline.storage import Location
from tests.evaluation import data_sets


def emoji_packages(root: Path) -> list[Path]:
    """Three concepts and a skin tone; Fluent lacks one, and codes differ in the mark of a look."""
    rows: list[dict[str, Any]] = [
        {"label": "grinning face", "hexcode": "1F600", "tags": ["cheerful", "face"], "group": 0, "subgroup": 0},
        {"label": "red heart", "hexcode": "2764-FE0F", "tags": ["love"], "group": 0, "subgroup": 1},
        {"label": "crocodile", "hexcode": "1F40A", "group": 3, "subgroup": 2},
        {"label": "light skin tone", "hexcode": "1F3FB", "group": 2, "subgroup": 9},
        {"label": "regional indicator A", "hexcode": "1F1E6"},
    ]
    groups = [
        {"key": "x", "message": name, "order": order} for order, name in ((0, "smileys"), (2, "parts"), (3, "nature"))
    ]
    subgroups = [{"key": "x", "message": name, "order": n} for n, name in enumerate(("smiling", "hearts", "reptiles"))]
    data_sets.write_json(root / "texts" / "en" / "data.json", rows)
    data_sets.write_json(root / "texts" / "en" / "messages.json", {"groups": groups, "subgroups": subgroups})
    for number, name in enumerate(("1f600", "2764-fe0f", "1f40a", "1f3fb")):
        data_sets.picture(root / "google" / "img" / "google" / "64" / f"{name}.png", number)
        data_sets.picture(root / "twitter" / "img" / "twitter" / "64" / f"{name}.png", 10 + number)
    for number, name in enumerate(("1f600", "2764")):
        data_sets.picture(root / "fluent" / "assets" / f"{name}.png", 20 + number)
    return [root / name for name in ("texts", "google", "twitter", "fluent")]


def test_an_emojis_label_is_true_in_every_hand(tmp_path: Path) -> None:
    found = emoji.build(emoji_packages(tmp_path), tmp_path)
    assert found.files == (
        "noto/1f600.png", "noto/2764.png", "noto/1f40a.png",
        "twemoji/1f600.png", "twemoji/2764.png", "twemoji/1f40a.png",
        "fluent/1f600.png", "fluent/2764.png",
    )  # fmt: skip
    label, tags = found.queries
    assert label.texts == ("grinning face", "red heart", "crocodile")
    right = {(label.texts[t], found.files[i]) for t, i in zip(label.pair_text_P, label.pair_image_P, strict=True)}
    assert {file for text, file in right if text == "red heart"} == {
        "noto/2764.png",
        "twemoji/2764.png",
        "fluent/2764.png",
    }
    assert tags.texts == ("cheerful, face", "love")
    assert found.spec.classification["group"].classes == ("smileys", "nature")
    assert found.spec.classification["subgroup"].classes == ("smiling", "hearts", "reptiles")
    assert found.labels["group"].tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    benchmark_writer.write(found, Location.of(tmp_path / "folder"))
    assert len(benchmarks.read(str(tmp_path / "folder")).queries) == 2


def stamp_files(root: Path) -> Path:
    """Two groups; a caption twice, a stamp without one, and captions in other languages after the first line."""
    top = root / stamps.PLACE
    for number, (name, text) in enumerate(
        [
            ("animals/birds/duck", "A duck.\nde.utf8=Eine Ente.\n"),
            ("animals/goose", "A duck.\n"),
            ("food/pear", "A pear."),
        ]
    ):
        data_sets.picture(top / f"{name}.png", number)
        (top / f"{name}.txt").write_text(text)
    data_sets.picture(top / "food" / "nameless.png")
    return root


def test_stamps_are_grouped_by_folder(tmp_path: Path) -> None:
    found = stamps.build([stamp_files(tmp_path)], tmp_path)
    assert found.files == ("animals/birds/duck.png", "animals/goose.png", "food/pear.png")
    (captions,) = found.queries
    assert captions.texts == ("A duck.", "A pear.")
    assert list(zip(captions.pair_text_P.tolist(), captions.pair_image_P.tolist(), strict=True)) == [
        (0, 0),
        (0, 1),
        (1, 2),
    ]
    assert found.spec.classification["group"].classes == ("animals", "food")


def idx(path: Path, values: np.ndarray) -> None:
    """A file in the form of MNIST."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (0x800 + values.ndim).to_bytes(4, "big") + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


def mnist_files(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        idx(root / "usr" / "share" / "x" / f"{prefix}-images-idx3-ubyte.gz", rng.integers(256, size=(count, 28, 28)))
        idx(root / "usr" / "share" / "x" / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return root


def test_fashion_mnist_has_a_split_to_test_and_one_to_train(tmp_path: Path) -> None:
    found = fashion_mnist.build([mnist_files(tmp_path)], tmp_path)
    assert found.train is not None
    assert (len(found.files), len(found.train.files)) == (20, 30)
    assert found.labels["article"].tolist() == [*range(10)] * 2
    benchmark_writer.write(found, Location.of(tmp_path / "folder"))
    again = benchmarks.read(str(tmp_path / "folder"))
    assert again.train is not None
    assert again.train.labels["article"].tolist() == [*range(10)] * 3


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for registries' clients, which is all of PATH, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("HOLISM_CACHE", str(tmp_path / "cache"))
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def test_what_cannot_be_had_is_skipped_in_one_sentence(clients: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script(clients / "npm", 'echo "npm error network is unreachable" >&2; exit 1')
    assert main(["fetch", "stamps", "emoji"]) == 2
    error = capsys.readouterr().err
    assert (
        "the suite stamps is skipped: apt-get is not installed, and apt-get download tuxpaint-stamps-default" in error
    )
    assert (
        "the suite emoji is skipped: npm pack emojibase-data@17.0.0 failed: npm error network is unreachable" in error
    )
    assert "emoji-datasource-twitter (MIT; pictures of Twemoji, CC-BY-4.0)" in error, "licences are shown first"
    assert main(["fetch", "imagenet"]) == 2
    assert (
        "there is no suite 'imagenet' to fetch; there are emoji, emoji_composites, fashion_mnist, stamps"
        in capsys.readouterr().err
    )
    with pytest.raises(MissingDataError, match=r"the suite emoji is not in .*; get it with: holism fetch emoji"):
        benchmarks.check("emoji")
    assert [path.name for path in (clients.parent / "cache" / "suites").iterdir()] == [], "nothing half done is left"


def test_what_was_fetched_is_found_by_its_name(
    clients: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client that packs what is there, as npm does; the second time nothing is asked."""
    folders = emoji_packages(tmp_path / "packages")
    for package, folder in zip(emoji.PACKAGES, folders, strict=True):
        with tarfile.open(tmp_path / f"{package.name.replace('/', '-')}.tgz", "w:gz") as tar:
            tar.add(folder, "package")
    short = "/usr/bin/env -i PATH=/usr/bin:/bin sed 's/@[0-9.]*$//; s,/,-,'"
    script(clients / "npm", f'name=$(echo "$2" | {short}); /bin/cp "{tmp_path}/$name.tgz" .')
    assert main(["fetch", "emoji"]) == 0
    said = capsys.readouterr().out
    assert "emoji: 8 images, 3 texts (emoji/all_captions), 2 texts (emoji/all_captions), 2 classes" in said
    (clients / "npm").unlink()
    assert main(["fetch", "emoji"]) == 0
    assert benchmarks.read("emoji").name == "emoji"
    folder = str(tmp_path / "cache" / "suites" / "emoji")
    assert benchmarks.check(SuiteAt(suite="emoji")) == benchmarks.check(folder) == benchmarks.check(f"emoji={folder}")
    assert benchmarks.read(SuiteAt(suite="emoji", name="mine")).name == "mine"
    assert benchmarks.check(SuiteAt(suite="emoji", name="mine")) != benchmarks.check(folder), "results are called so"


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_package_of_debian_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = stamp_files(tmp_path / "package")
    (package / "DEBIAN").mkdir()
    control = "Package: tuxpaint-stamps-default\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    (package / "DEBIAN" / "control").write_text(control)
    clients = tmp_path / "bin"
    clients.mkdir()
    script(clients / "apt-get", f'dpkg-deb -b "{package}" "$2_1_all.deb" > /dev/null')
    monkeypatch.setenv("PATH", f"{clients}:{os.environ['PATH']}")
    monkeypatch.setenv("HOLISM_CACHE", str(tmp_path / "cache"))
    place = fetch.fetch("stamps")
    assert len(benchmarks.read(str(place)).files) == 3
    assert fetching.cached("stamps") == place
    assert json.dumps(fetch.licences("stamps")) == '"tuxpaint-stamps-default (GPL-2)"'


def test_composites_of_emoji_are_painted_with_their_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = emoji_packages(tmp_path / "packages")
    for name in ("GROUPS", "PICTURES", "FEWEST", "MOST"):
        value = {"GROUPS": (0, 3), "PICTURES": 6, "FEWEST": 2, "MOST": 2}[name]
        monkeypatch.setattr(emoji_composites, name, value)
    for made in ("one", "two"):
        (tmp_path / made).mkdir()
        found = emoji_composites.build(folders, tmp_path / made)
        benchmark_writer.write(found, Location.of(tmp_path / made / "folder"))
    first, second = (benchmarks.read(str(tmp_path / made / "folder")) for made in ("one", "two"))
    assert [picture.read() for picture in first.pictures] == [picture.read() for picture in second.pictures]
    concept, group = first.spec.segmentation.values()
    assert concept.classes == ("crocodile", "grinning face", "red heart"), "in order of codes"
    assert group.classes == ("smileys", "nature")
    for picture, mask in zip(first.pictures, first.masks, strict=True):
        number_YX = masks.read(mask)
        assert number_YX.shape == (emoji_composites.SIDE, emoji_composites.SIDE)
        numbers = set(np.unique(number_YX)) - {0, masks.UNLABELLED}
        assert len(numbers) == 2
        told = {(1, 1), (2, 0), (3, 0)}
        pairs = zip(number_YX.ravel().tolist(), masks.places(number_YX, group).ravel().tolist(), strict=True)
        assert {pair for pair in pairs if pair[1] != masks.OUTSIDE} == {pair for pair in told if pair[0] in numbers}
        seen = np.asarray(pictures.decode(picture.read())[0]).astype(int)
        for number in numbers:  # fixtures are of one colour, with a blue square inside
            inside = np.median(seen[number_YX == number], axis=0)
            fixtures = ((2, 12), (0, 10, 20), (1, 11, 21))[number - 1]
            paints = [(40 + 37 * n % 200, 250 - 53 * n % 200, 90) for n in fixtures]
            assert min(np.abs(inside - paint).max() for paint in paints) < 12
