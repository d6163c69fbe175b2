"""Curation: planted faults are found, clean captions survive, and the stage leaves what training reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_workspace import DROPPED, PROMPTS, REPAIRED, caption, curate, curate_run, ingest, number_of

from captioning.curate.bundles import TOKENIZER, clip_token_counter
from captioning.curate.config import CleanConfig, CurateConfig, EndingConfig, LengthConfig, RejectConfig
from captioning.curate.draft import Draft, run_gadgets
from captioning.curate.gadgets.clean import Clean
from captioning.curate.gadgets.ending import Ending
from captioning.curate.gadgets.reject import Reject
from captioning.curate.phrases import load_phrases
from captioning.curate.reasons import MEANING, Reason
from captioning.curate.shard import make_gadgets
from captioning.curate.stage import STAGE
from pipeline import schemas
from pipeline.config import build
from pipeline.errors import ConfigError, InputError
from pipeline.ingest import shard_images, shard_names
from pipeline.workspace import Workspace

PHRASES = load_phrases(None)
CLEAN = Clean(CleanConfig(), PHRASES)


def draft_of(*rows: dict[str, Any], ngram: int = 2) -> Draft:
    """A draft of one image; rows name only what matters to the test."""
    base = {"key": "k", "perspective": "detail", "granularity": "sentence", "level": "scene", "finish_reason": "stop"}
    full = [{**base, "status": "ok", "caption_id": f"{i:04}", **row} for i, row in enumerate(rows)]
    return Draft({name: [row[name] for row in full] for name in full[0]}, ngram=ngram)


def reasons(draft: Draft) -> list[str | None]:
    """The reason of every row."""
    return [verdict[1] if verdict else None for verdict in draft.verdicts]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("The image shows a red boat.", "A red boat."),
        ("This picture depicts two dogs running.", "Two dogs running."),
        ("In this image, we can see a man.", "A man."),
        ("In the photo there are three cups on a table.", "Three cups on a table."),
        ("Sure! Here is a short description: A cat sleeps.", "A cat sleeps."),
        ("Caption: a cat sleeps", "A cat sleeps"),
        ('"A calm sea."', "A calm sea."),
        ("“A calm\n sea.”", "A calm sea."),
        ("**A calm sea.**", "A calm sea."),
        ("- A calm sea.", "A calm sea."),
        ("A  calm\t\nsea.\u200b", "A calm sea."),
        ("an image of a calm sea", "a calm sea"),
    ],
)
def test_clean_takes_off_what_is_not_the_caption(raw: str, expected: str) -> None:
    assert CLEAN.clean(raw) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A red boat on the sea.",
        '"Stop" and "Go" are written on two signs.',
        "The image shows that winter is near.",  # what follows does not stand by itself
        "A painting of a house in watercolour.",  # the style is part of the caption
        "Image stabilisers on a shelf.",
        "3 apples, 2 pears",
        "O'Neill's pub at night.",
    ],
)
def test_clean_leaves_captions_alone(text: str) -> None:
    assert CLEAN.clean(text) == text


@given(
    st.text(max_size=80) | st.sampled_from(["The image shows ", '"', "Sure! ", "**"]).map(lambda s: s * 3 + "a dog")
)
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = CLEAN.clean(text)
    assert CLEAN.clean(once) == once
    assert once == once.strip()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I cannot assist with that.", Reason.REFUSAL),
        ("I can't see any picture.", Reason.REFUSAL),
        ("Unfortunately, I am unable to view images.", Reason.REFUSAL),
        ("No image was provided.", Reason.REFUSAL),
        ("As an AI model I do not feel.", Reason.META),
        ("A red boat. Let me know if you need more detail!", Reason.META),
        ("A dog <|im_end|>", Reason.META),
        ("the the the the", Reason.REPETITION),
        ("a cat and a dog and a cat and a dog and a cat and a dog and a cat", Reason.REPETITION),
        ("noooooooooooo", Reason.REPETITION),
        ("x" * 60, Reason.REPETITION),
        ("", Reason.EMPTY),
        ("?!...", Reason.EMPTY),
    ],
)
def test_reject_names_the_fault(text: str, reason: Reason) -> None:
    draft = draft_of({"text": text})
    Reject(RejectConfig(), PHRASES).apply(draft)
    assert reasons(draft) == [reason]


@pytest.mark.parametrize(
    "text",
    [
        "The sign says: no dogs, no bikes, no cars.",
        "The star is to the left of the house and the fish is to the left of the boat.",
        "A user interface with a prompt and a red button.",
        "A man looks sorry about the broken vase.",
        "A very, very old tree.",
        "日本の海と山の風景。",
        "A licence plate that reads 0000000000.",
    ],
)
def test_reject_leaves_captions_alone(text: str) -> None:
    draft = draft_of({"text": text})
    Reject(RejectConfig(), PHRASES).apply(draft)
    assert reasons(draft) == [None]


@pytest.mark.parametrize(
    ("text", "granularity", "finish", "expected"),
    [
        ("A boat. Behind it", "paragraph", "length", "A boat."),
        ("A boat. Behind it stands", "paragraph", "stop", "A boat."),
        ("A boat lies on the sea.", "sentence", "length", "A boat lies on the sea."),
        ("A boat lies on the sea", "sentence", "stop", "A boat lies on the sea."),
        ("A boat lies on the", "sentence", "stop", None),
        ("A boat lies on", "sentence", "length", None),
        ("Mr. Smith rows a", "sentence", "length", None),
        ("A boat 3.5 m long and", "sentence", "length", None),
        ('He says "stop!" and', "sentence", "length", 'He says "stop!"'),
        ("海と山。その後", "sentence", "length", "海と山。"),
        ("boat on the sea", "phrase", "stop", "boat on the sea"),
        ("boat on the", "phrase", "length", None),
        ("boat, sea, sk", "word", "length", "boat, sea"),
        ("boat, sea, sky", "word", "stop", "boat, sea, sky"),
    ],
)
def test_ending_repairs_or_drops_what_was_cut(text: str, granularity: str, finish: str, expected: str | None) -> None:
    ending = Ending(EndingConfig(), PHRASES)
    assert ending.repair(text, granularity, at_limit=finish == "length") == expected
    if expected != text:
        assert (
            Ending(EndingConfig(repair=False), PHRASES).repair(text, granularity, at_limit=finish == "length") is None
        )


def test_length_goes_by_granularity() -> None:
    config = CurateConfig(length=LengthConfig.model_validate({"phrase": {"max": 3}, "paragraph": {"min": 5}}))
    draft = draft_of(
        {"text": "one two three four", "granularity": "phrase"},
        {"text": "one two three four five six", "granularity": "sentence"},
        {"text": "one two three four.", "granularity": "paragraph"},
    )
    run_gadgets(draft, make_gadgets(config))
    assert reasons(draft) == [Reason.TOO_LONG, None, Reason.TOO_SHORT]


def test_limits_the_wrong_way_round_are_named() -> None:
    with pytest.raises(ConfigError, match="min 9 is above max 3"):
        build(CurateConfig, {"length": {"word": {"min": 9, "max": 3}}})


def test_gadgets_declare_what_they_do_and_are_counted_alone() -> None:
    gadgets = make_gadgets(CurateConfig())
    declared = [reason for gadget in gadgets for reason in gadget.reasons]
    assert sorted(declared) == sorted(set(Reason)), "every reason belongs to exactly one gadget"
    assert set(MEANING) == set(Reason)
    draft = draft_of({"text": "The image shows a boat."}, {"text": "I'm sorry, I can't."}, {"text": "Blue sky."})
    reports = run_gadgets(draft, gadgets)
    assert (reports["clean"].seen, reports["clean"].changed, reports["clean"].dropped) == (3, 1, {})
    assert (reports["reject"].seen, reports["reject"].dropped) == (3, {"refusal": 1})
    assert reports["ending"].seen == 2
    with pytest.raises(ValueError, match="cannot drop"):
        draft.drop(0, gadgets[0], Reason.DUPLICATE)


def test_own_phrases_are_read_and_mistakes_in_them_named(tmp_path: Path) -> None:
    own = tmp_path / "phrases.yaml"
    own.write_text("openers: ['das {picture} zeigt']\nparts: {picture: '(?:bild|foto)'}\n")
    assert Clean(CleanConfig(), load_phrases(str(own))).clean("Das Foto zeigt ein Haus.") == "Ein Haus."
    before = STAGE.external(CurateConfig(phrases=str(own)))
    own.write_text("openers: ['das {picture} zeigt', '(']\nparts: {picture: '(?:bild|foto)'}\n")
    assert STAGE.external(CurateConfig(phrases=str(own))) != before, "an edited list is curated again"
    with pytest.raises(ConfigError, match="'openers' has '\\('"):
        load_phrases(str(own))
    with pytest.raises(ConfigError, match="cannot read"):
        STAGE.external(CurateConfig(phrases=str(tmp_path / "none.yaml")))


# ---- the stage ----


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = ingest(tmp_path_factory.mktemp("curate"))
    caption(workspace)
    return workspace


def rows_of(manifest: Any, folder: str, schema: Any) -> list[dict[str, Any]]:
    """All rows of one table of a manifest."""
    return [
        row for part in manifest.select(folder) for row in schemas.read(manifest.location(part), schema).to_pylist()
    ]


def test_planted_faults_are_found_and_clean_captions_survive(captioned: Workspace) -> None:
    manifest = curate(captioned)
    verdicts = rows_of(manifest, "verdicts/", schemas.VERDICTS)
    captions = {
        (row["key"], row["caption_id"]): row
        for row in rows_of(captioned.manifests("caption")[0], "captions/", schemas.CAPTIONS)
    }
    assert {(row["key"], row["caption_id"]) for row in verdicts} == set(captions)
    assert len(verdicts) == len(captions) == 29 * len(PROMPTS)
    found = {}
    spoken: dict[str, set[str]] = {}
    for verdict in verdicts:
        row = captions[verdict["key"], verdict["caption_id"]]
        assert verdict["keep"] == (verdict["gadget"] is None) == (verdict["reason"] is None)
        found[number_of(row), row["prompt_id"]] = (verdict, row)
        if verdict["keep"]:
            spoken.setdefault(row["key"], set()).add(verdict["clean_text"] or row["text"])
    for planted, (_, _, reason) in DROPPED.items():
        assert found.pop(planted)[0]["reason"] == reason, planted
    for planted, (raw, _, text) in REPAIRED.items():
        verdict, _ = found.pop(planted)
        assert (verdict["keep"], verdict["clean_text"]) == (True, text if text != raw else None), planted
    for verdict, row in found.values():
        assert verdict["keep"] or row["text"] in spoken[row["key"]], (verdict, row["text"])


def test_bundles_hold_what_training_reads(captioned: Workspace) -> None:
    manifest = curate(captioned)
    images = captioned.manifests("ingest")[0]
    readable = {
        row["key"]: row
        for shard in shard_names(images)
        for row in shard_images(images, shard).to_pylist()
        if row["status"] == "ok"
    }
    bundles = rows_of(manifest, "bundles/", schemas.BUNDLES)
    assert sorted(row["key"] for row in bundles) == sorted(readable)
    assert len(bundles) == 29, "the cut picture has no bundle"
    kept = {(row["key"], row["caption_id"]) for row in rows_of(manifest, "verdicts/", schemas.VERDICTS) if row["keep"]}
    count = clip_token_counter()
    for bundle in bundles:
        image = readable[bundle["key"]]
        assert [bundle[name] for name in ("offset", "size")] == [image[name] for name in ("offset", "size")]
        alt = [entry for entry in bundle["captions"] if entry["source"] == "alt"]
        assert [entry["text"] for entry in alt] == ([image["alt_text"]] if image["alt_text"] else [])
        for entry in bundle["captions"]:
            assert entry["n_tokens"] == count(entry["text"]) > 2
            assert (bundle["key"], entry["caption_id"]) in kept or entry["source"] == "alt"
        assert 0 <= bundle["mean_similarity"] < 0.5
        assert 0.3 < bundle["distinct_2"] <= 1
    part = manifest.select("bundles/")[0]
    import pyarrow.parquet as pq

    assert pq.read_schema(manifest.location(part).uri).metadata[b"holism.tokenizer"].decode() == TOKENIZER
    assert manifest.detail["tokenizer"] == TOKENIZER


def test_counts_add_up(captioned: Workspace) -> None:
    counts = curate(captioned).counts
    assert counts["captions"] == counts["kept"] + counts["dropped"] == 29 * len(PROMPTS)
    assert sum(counts["reasons"].values()) == counts["dropped"] == sum(counts["dropped_by_gadget"].values())
    assert sum(counts["kept_by_perspective"].values()) == counts["kept"]
    assert counts["reasons"]["refusal"] == counts["reasons"]["repetition"] == counts["reasons"]["error"] == 1
    assert 0 < counts["mean_similarity"] < 0.5
    assert list(counts["seen_by_gadget"]) == ["clean", "reject", "ending", "length", "duplicates", "select"]


def test_clip_tokens_are_counted_as_open_clip_counts_them() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    texts = ["A red boat.", "ein schönes Haus &amp; Garten", "日本", "x" * 100]
    tokens = SimpleTokenizer(context_length=400)(texts)
    assert [clip_token_counter()(text) for text in texts] == [(row != 0).sum().item() for row in tokens]


def test_a_shard_without_captions_is_a_counted_warning(tmp_path: Path) -> None:
    workspace = ingest(tmp_path)
    caption(workspace, shards=["part-000", "part-001"])
    manifest = curate(workspace)
    assert any("1 of 3 shards have no caption at all (part-002)" in warning for warning in manifest.warnings)
    assert any("9 of 29 images keep no caption" in warning for warning in manifest.warnings)
    assert len(rows_of(manifest, "bundles/", schemas.BUNDLES)) == 29, "their alt texts can still be trained on"


def test_nothing_left_ends_in_one_clear_sentence(tmp_path: Path) -> None:
    workspace = ingest(tmp_path, images=3)
    caption(workspace, shards=[])
    with pytest.raises(InputError, match="none of the 2 readable images has a caption"):
        curate(workspace)
    caption(workspace)
    nothing = LengthConfig.model_validate(
        {name: {"min": 500, "max": 900} for name in ("word", "phrase", "sentence", "paragraph")}
    )
    with pytest.raises(InputError, match=r"kept none of 14 captions \(dropped as too_short 12"):
        curate(workspace, CurateConfig(length=nothing))


def test_a_stopped_curation_goes_on_where_it_was(captioned: Workspace) -> None:
    config = CurateConfig(ngram=3)
    whole = STAGE.run(curate_run(captioned, config))
    log = [part for part in whole.parts if part.name == "bundles/part-001.parquet"]
    store = captioned.folder("curate") / curate_run(captioned, config).fingerprint[:12]
    (store / log[0].name).remove()
    untouched = (store / "bundles/part-000.parquet").info()["mtime"]
    again = STAGE.run(curate_run(captioned, config))
    assert {part.name: part.digest for part in again.parts} == {part.name: part.digest for part in whole.parts}
    assert (store / "bundles/part-000.parquet").info()["mtime"] == untouched
    seconds = "seconds_by_gadget"
    assert {k: v for k, v in again.counts.items() if k != seconds} == {
        k: v for k, v in whole.counts.items() if k != seconds
    }


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_verdicts_do_not_depend_on_the_order_of_rows(random: Any) -> None:
    texts = "a red boat. | a red boat! | a blue boat. | the sea is calm. | the sea is very calm. | no | a red boat"
    rows = [
        {"caption_id": f"{i:03}", "key": "ab"[i % 2], "perspective": "pq"[i % 3 % 2], "text": text}
        for i, text in enumerate(texts.split(" | "))
    ]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    results = []
    for order in (rows, shuffled):
        draft = draft_of(*order)
        run_gadgets(
            draft, make_gadgets(CurateConfig.model_validate({"select": {"max_captions": 2}, "coverage": False}))
        )
        results.append([(draft.columns["caption_id"], draft.texts, draft.verdicts)])
    assert results[0] == results[1]


def test_the_stage_is_light_to_look_at() -> None:
    code = (
        "import sys, captioning.curate.stage; "
        "print([m for m in ('torch', 'open_clip', 'pyarrow', 'numpy', 'duckdb') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
