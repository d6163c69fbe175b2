"""Sub-captions: sentences are split where they end, and parts are drawn as FLAIR does, the same every time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import small_workspace
from hypothesis import given
from hypothesis import strategies as st

from captioning.curate.bundles.sub_captions import granularity_of, split_sentences, sub_captions
from captioning.curate.bundles.table import make_bundles
from captioning.curate.config import CurateConfig, SubCaptionsConfig
from captioning.curate.draft import Draft
from captioning.curate.text_rules.words import words
from pipeline import schemas
from training.config import RunConfig, Slot
from training.index.piece import piece_of

ON = SubCaptionsConfig(enabled=True)


@pytest.mark.parametrize(
    "sentences",
    [
        ["A boat."],
        ["A boat lies on the sea.", "Behind it is a tower.", "It is calm"],
        ["Mr. Smith rows with Dr. J. Miller.", "They are near St. Ives."],
        ["The boat is 3.5 m long and costs approx. 20 coins.", "2 men row it."],
        ['A sign reads "Stop! Go back." in red.', "A man waits."],
        ["He shouts “No! Never.” at the sea.", "(It is late. Very late.)", "Nobody hears."],
        ["What is it?", "A boat!", '"Ida" is its name.', "Wow…", "Élan is another."],
        ["海と山。", "空は青い！", "「静か。とても。」と人が言う。"],
        ["It has fruit, e.g. Apples and pears.", "The end."],
        ['The ruler is 5" long.', "It is red."],  # a quotation mark that is none
    ],
)
def test_sentences_are_split_where_they_end(sentences: list[str]) -> None:
    cjk = "。" in sentences[0]
    assert split_sentences(("" if cjk else " ").join(sentences)) == sentences


@given(st.text(alphabet='ab AB.!?"()。“”0\n', max_size=60))
def test_splitting_loses_nothing_and_is_final(text: str) -> None:
    parts = split_sentences(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip() == part and part for part in parts)


def whole(count: int) -> tuple[list[str], str]:
    sentences = [f"Thing {'abcdefghij'[number]} lies here." for number in range(count)]
    return sentences, " ".join(sentences)


@given(count=st.integers(0, 8), name=st.text(max_size=5), most=st.integers(1, 4), wanted=st.integers(1, 9))
def test_parts_are_sentences_in_order(count: int, name: str, most: int, wanted: int) -> None:
    sentences, text = whole(count)
    config = SubCaptionsConfig(enabled=True, per_caption=wanted, max_sentences=most)
    parts = sub_captions(text, name, config)
    assert parts == sub_captions(text, name, config)
    assert len(parts) <= wanted
    assert len({words(part) for part in parts}) == len(parts)
    assert text not in parts
    if count < 2:
        assert parts == []
    else:
        assert parts
    for part in parts:
        places = [sentences.index(sentence) for sentence in split_sentences(part)]
        assert 1 <= len(places) <= most
        assert places == sorted(places)


def test_half_are_consecutive_and_half_are_any() -> None:
    sentences, text = whole(8)
    gaps = lengths = 0
    for number in range(400):
        for part in sub_captions(text, str(number), SubCaptionsConfig(enabled=True, per_caption=2)):
            places = [sentences.index(sentence) for sentence in split_sentences(part)]
            gaps += places != list(range(places[0], places[-1] + 1))
            lengths += len(places)
    # of 400 drawn freely a third has 1 sentence, 1/3 two (21 of 28 pairs apart), 1/3 three (50 of 56 apart)
    assert 400 * (0.75 + 50 / 56) / 3 * 0.85 < gaps < 400 * (0.75 + 50 / 56) / 3 * 1.15
    assert 1.85 < lengths / 800 < 2.15


def test_other_captions_give_other_parts() -> None:
    _, text = whole(8)
    assert len({tuple(sub_captions(text, str(number), ON)) for number in range(20)}) > 15


def test_chinese_parts_are_joined_without_spaces() -> None:
    text = "海と山がある。空は青いです。人が一人いる。犬もいます。"
    parts = sub_captions(text, "x", SubCaptionsConfig(enabled=True, per_caption=8))
    assert parts
    assert all(" " not in part for part in parts)


def test_granularity_is_by_the_number_of_sentences() -> None:
    assert granularity_of("A boat lies on the sea.") == "sentence"
    assert granularity_of("A boat lies on the sea. It is red.") == "paragraph"


def test_scraps_are_no_captions() -> None:
    assert sub_captions("Yes. It is. A boat lies on the sea.", "x", ON) != []
    assert all(len(words(part)) >= 3 for part in sub_captions("Yes. It is. A boat lies on the sea.", "x", ON))


def bundles_of(texts: dict[tuple[str, str], str], config: SubCaptionsConfig) -> pa.Table:
    """The bundle of one image with these captions, by (perspective, granularity)."""
    columns = {
        "key": ["k"] * len(texts),
        "caption_id": [f"c{number}" for number in range(len(texts))],
        "perspective": [perspective for perspective, _ in texts],
        "granularity": [granularity for _, granularity in texts],
        "level": ["scene"] * len(texts),
        "text": list(texts.values()),
    }
    image = {"shard": "s", "key": "k", "image_id": "i", "offset": 0, "size": 1, "alt_text": "a boat", "status": "ok"}
    images = schemas.table(schemas.IMAGES, [image])
    return make_bundles(images, {"k": "a boat"}, Draft(columns), lambda text: len(words(text)) + 2, config)


LONG = "A boat lies on the sea. Behind it is a tower. Gulls fly in the sky. It is calm."
SAID = {
    ("detail", "paragraph"): LONG,
    ("background", "sentence"): "Behind it is a tower.",
    ("main_object", "phrase"): "a boat",
}


def test_bundles_hold_parts_behind_their_captions() -> None:
    captions = bundles_of(SAID, SubCaptionsConfig(enabled=True, per_caption=6))["captions"].to_pylist()[0]
    assert [caption["source"] for caption in captions[:4]] == ["alt", "caption", "caption", "caption"]
    parts = captions[4:]
    assert {part["source"] for part in parts} == {"sub"}
    assert len(parts) >= 4
    for part in parts:
        assert (part["caption_id"], part["perspective"], part["level"]) == ("c0", "detail", "scene")
        assert part["granularity"] == granularity_of(part["text"])
        assert part["n_tokens"] == len(words(part["text"])) + 2
    assert sum(part["weight"] for part in parts) == pytest.approx(1.0)
    assert len({words(caption["text"]) for caption in captions}) == len(captions) - 1  # alt text and main object agree


def test_without_being_asked_there_are_none() -> None:
    captions = bundles_of(SAID, SubCaptionsConfig())["captions"].to_pylist()[0]
    assert {caption["source"] for caption in captions} == {"alt", "caption"}


def test_training_draws_parts_in_the_slot_of_their_caption() -> None:
    table = bundles_of(SAID, SubCaptionsConfig(enabled=True, per_caption=20))
    slots = (*RunConfig().slots, Slot(name="part", perspective="detail", granularity="sentence"))
    columns = piece_of(table, slots)
    names = [slots[slot].name for slot in columns.slot]
    assert names.count("part") >= 2
    drawn = columns.weight[[name == "detail" for name in names]]
    assert drawn[0] == 1.0
    assert 0 < drawn[1:].sum() <= 1.0 + 1e-6


def test_the_stage_counts_them(tmp_path: Path) -> None:
    workspace = small_workspace.ingest(tmp_path)
    small_workspace.caption(workspace)
    without = small_workspace.curate(workspace)
    assert without.counts["sub_captions"] == 0
    manifest = small_workspace.curate(workspace, CurateConfig(sub_captions=ON))
    bundles = [
        row
        for part in manifest.select("bundles/")
        for row in schemas.read(manifest.location(part), schemas.BUNDLES).to_pylist()
    ]
    parts = [caption for row in bundles for caption in row["captions"] if caption["source"] == "sub"]
    assert manifest.counts["sub_captions"] == len(parts) > 20
    assert manifest.counts["kept"] == without.counts["kept"]
