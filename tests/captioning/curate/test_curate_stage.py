"""The curate stage: planted faults are found, counts add up, and nothing is done twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from small_workspace import (
    DROPPED,
    PROMPTS,
    REPAIRED,
    both_passes,
    caption,
    curate,
    curate_run,
    draft_of,
    ingest,
    number_of,
)

from captioning.curate.bundles.tokens import TOKENIZER, clip_token_counter
from captioning.curate.config import CurateConfig
from captioning.curate.gadget import run_gadgets
from captioning.curate.gadgets.boilerplate import Boilerplate, BoilerplateConfig
from captioning.curate.gadgets.length import LengthConfig
from captioning.curate.stage import STAGE
from pipeline import schemas
from pipeline.cluster.config import ClusterConfig
from pipeline.config import build
from pipeline.errors import InputError, ScheduleError
from pipeline.ingest import shard_images, shard_names
from pipeline.workspace import Workspace


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
    judged = {}
    spoken: dict[str, set[str]] = {}
    for verdict in verdicts:
        row = captions[verdict["key"], verdict["caption_id"]]
        assert verdict["keep"] == (verdict["gadget"] is None) == (verdict["reason"] is None)
        judged[number_of(row), row["prompt_id"]] = (verdict, row)
        if verdict["keep"]:
            spoken.setdefault(row["key"], set()).add(verdict["clean_text"] or row["text"])
    for planted, (_, _, reason) in DROPPED.items():
        assert judged.pop(planted)[0]["reason"] == reason, planted
    for planted, (raw, _, text) in REPAIRED.items():
        verdict, _ = judged.pop(planted)
        assert (verdict["keep"], verdict["clean_text"]) == (True, text if text != raw else None), planted
    for verdict, row in judged.values():
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
    assert list(counts["seen_by_gadget"]) == [gadget.name for gadget in both_passes(CurateConfig())]


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=40), st.text("ab'’ .,1&;<>|ß日\t\n", max_size=40)))
@example("ein schönes Haus &amp; Garten, it's  1,234.5 €")
@example("a<start_of_text>b <END_OF_TEXT> “quoted” ﬁne")
@example("x" * 100)
def test_clip_tokens_are_counted_as_open_clip_counts_them(text: str) -> None:
    assume(
        not any(unicodedata.category(character) in ("Cn", "Cs") for character in text)
    )  # versions of Unicode differ
    assert clip_token_counter()(text) == len(open_clip_tokenizer().encode(text)) + 2


@cache
def open_clip_tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def test_a_shard_without_captions_is_a_counted_warning(tmp_path: Path) -> None:
    workspace = ingest(tmp_path)
    caption(workspace, shards=["part-000", "part-001"])
    manifest = curate(workspace)
    assert any("1 shard has no caption (of 3): part-002" in warning for warning in manifest.warnings)
    assert any("9 images keep no caption (of 29)" in warning for warning in manifest.warnings)
    assert len(rows_of(manifest, "bundles/", schemas.BUNDLES)) == 29, "their alt texts can still be trained on"


def test_nothing_left_ends_in_one_clear_sentence(tmp_path: Path) -> None:
    workspace = ingest(tmp_path, images=3)
    caption(workspace, shards=[])
    with pytest.raises(InputError, match="none of 2 readable images has a caption"):
        curate(workspace)
    caption(workspace)
    nothing = LengthConfig.model_validate(
        {name: {"min": 500, "max": 900} for name in ("word", "phrase", "sentence", "paragraph")}
    )
    with pytest.raises(InputError, match=r"kept none of 14 captions \(dropped as too_short 12"):
        curate(workspace, CurateConfig(length=nothing))


def test_results_do_not_depend_on_the_layout_of_shards(tmp_path: Path) -> None:
    config = build(
        CurateConfig,
        {
            "support": {"enabled": True, "min_images": 1},
            "sub_captions": {"enabled": True},
            "boilerplate": {"max_images": 3, "min_words": 3},
            "select": {"max_captions": 5, "max_similarity": 0.3},
            "coverage": False,
        },
    )
    results = []
    for size in (4, 10, 50):
        workspace = ingest(tmp_path / str(size), shard_images=size)
        caption(workspace)
        manifest = curate(workspace, config)
        verdicts = rows_of(manifest, "verdicts/", schemas.VERDICTS)
        bundles = rows_of(manifest, "bundles/", schemas.BUNDLES)
        results.append(
            (
                {(row["caption_id"], row["key"]): (row["reason"], row["clean_text"]) for row in verdicts},
                {row["key"]: (row["captions"], row["mean_similarity"]) for row in bundles},
            )
        )
    assert results[0] == results[1] == results[2]
    reasons = {reason for reason, _ in results[0][0].values()}
    assert {"boilerplate", "redundant"} <= reasons


def files_of(workspace: Workspace, stage: str) -> dict[str, tuple[float, int]]:
    """Time and size of every file of a stage but manifests."""
    folder = Path(workspace.folder(stage).uri)
    files = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {str(path.relative_to(folder)): (about.st_mtime_ns, about.st_size) for path, about in files.items()}


def steps_of(files: Iterable[str]) -> set[str]:
    """Which steps' parts are among these files."""
    return {name.split("-")[0] for name in files}


def test_a_stopped_curation_goes_on_where_it_was(captioned: Workspace) -> None:
    config = CurateConfig(ngram=3)
    whole = STAGE.run(curate_run(captioned, config))
    next(Path(whole.store).glob("bundles/part-001-*")).unlink()
    before = files_of(captioned, "curate")
    again = STAGE.run(curate_run(captioned, config))
    assert {part.name: part.digest for part in again.parts} == {part.name: part.digest for part in whole.parts}
    after = files_of(captioned, "curate")
    changed = {name for name, about in after.items() if before.get(name) != about and "_commits" not in name}
    assert {name.split("/", 1)[1][:-17] for name in changed} == {"bundles/part-001", "verdicts/part-001"}
    seconds = "seconds_by_gadget"
    assert {k: v for k, v in again.counts.items() if k != seconds} == {
        k: v for k, v in whole.counts.items() if k != seconds
    }


def test_a_changed_threshold_recomputes_only_what_depends_on_it(tmp_path: Path) -> None:
    workspace = ingest(tmp_path)
    caption(workspace)
    curate(workspace)
    captions, first = files_of(workspace, "caption"), files_of(workspace, "curate")
    curate(workspace, build(CurateConfig, {"select": {"max_captions": 3}}))
    second = files_of(workspace, "curate")
    assert {name: second[name] for name in first} == first, "nothing that was there is written again"
    assert steps_of(set(second) - set(first)) == {"verdicts"}
    curate(workspace, build(CurateConfig, {"length": {"phrase": {"max": 3}}}))
    third = files_of(workspace, "curate")
    assert {name: third[name] for name in second} == second
    assert steps_of(set(third) - set(second)) == {"texts", "verdicts"}
    assert files_of(workspace, "caption") == captions


def test_a_text_that_changed_under_its_id_is_in_the_bundles(tmp_path: Path) -> None:
    workspace = ingest(tmp_path, images=20, shard_images=1)  # some shards have no text to clean: no verdict changes
    for full_stop in (".", "!"):
        caption(workspace, full_stop=full_stop)
        bundles = rows_of(curate(workspace), "bundles/", schemas.BUNDLES)
        texts = [entry["text"] for row in bundles for entry in row["captions"] if entry["source"] == "caption"]
        assert {text[-1] for text in texts if text[-1] in ".!"} == {full_stop}


def test_only_shards_that_changed_are_gone_over_again(tmp_path: Path) -> None:
    workspace = ingest(tmp_path)
    caption(workspace, shards=["part-000", "part-001"])
    curate(workspace)
    before = files_of(workspace, "curate")
    caption(workspace)
    curate(workspace)
    after = files_of(workspace, "curate")
    written = {name for name, about in after.items() if before.get(name) != about and "_commits" not in name}
    assert {Path(name).stem[:-9] for name in written} == {"part-002"}
    assert {name: after[name] for name in before} == before, "what older manifests name stays as it was"


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
            draft, both_passes(CurateConfig.model_validate({"select": {"max_captions": 2}, "coverage": False}))
        )
        results.append([(draft.columns["caption_id"], draft.texts, draft.verdicts)])
    assert results[0] == results[1]


def test_the_stage_is_light_to_look_at() -> None:
    code = (
        "import sys, captioning.curate.stage; "  # gadgets declare the configuration, and use numpy
        "print([m for m in ('torch', 'open_clip', 'transformers', 'duckdb', 'ray') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_sentences_at_too_many_images_are_boilerplate_whatever_the_shards() -> None:
    common = "a wonderful moment that invites you to dream and to linger for a while"
    rows = [
        {"key": f"{i:03}", "caption_id": f"{i:03}-{j}", "perspective": perspective, "text": text}
        for i in range(60)
        for j, (perspective, text) in enumerate(
            [("style", common if i % 2 else f"{common} {i}"), ("detail", f"number {i} of sixty very different things")]
        )
    ]
    config = build(CurateConfig, {"boilerplate": {"max_images": 25}})
    statistic = config.boilerplate.statistic()
    dropped = []
    for shard in (7, 60, 200):
        drafts = [draft_of(*rows[start : start + shard]) for start in range(0, len(rows), shard)]
        crowded = statistic.merge(statistic.of_shard(draft) for draft in drafts)
        identities = []
        for draft in drafts:
            run_gadgets(draft, [Boilerplate(statistic, crowded)])
            pairs = zip(draft.columns["caption_id"], draft.verdicts, strict=True)
            identities += [identity for identity, verdict in pairs if verdict == ("boilerplate", "boilerplate")]
        dropped.append(identities)
    assert dropped[0] == dropped[1] == dropped[2]
    assert all(identity.endswith("-0") for identity in dropped[0]), "other sentences stay"
    assert {f"{i:03}-0" for i in range(1, 60, 2)} <= set(dropped[0]), "the very same words are always found"
    assert len(dropped[0]) >= 55, "and most of those that are nearly the same"


def test_one_image_fills_no_bucket() -> None:
    text = "the very same sentence in each of the answers about this image"
    statistic = BoilerplateConfig(max_images=1).statistic()
    assert not statistic.merge(iter([statistic.of_shard(draft_of(*({"text": text} for _ in range(20))))]))


def test_copies_of_a_picture_count_as_one_image() -> None:
    """A list with a row for every caption: each row has the answers of the picture, with the same ids."""
    text = "the very same sentence in each of the answers about this image"
    said = [{"key": f"k{n}", "caption_id": f"{n % 2}", "text": text} for n in range(10)]
    for most, crowded in ((1, True), (2, False)):
        statistic = BoilerplateConfig(max_images=most).statistic()
        assert bool(statistic.merge(iter([statistic.of_shard(draft_of(*said))]))) == crowded


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=6, max_size=20))
def test_same_words_share_all_buckets_and_other_words_none(text: list[str]) -> None:
    same, again, other = BoilerplateConfig().statistic().buckets([text, text, [f"x{word}" for word in text]])
    assert (same == again).all()
    assert not set(other) & set(same)


def test_most_near_duplicates_share_a_bucket() -> None:
    words = [[f"{number}-{place}" for place in range(30)] for number in range(300)]
    buckets = BoilerplateConfig().statistic().buckets([*words, *([*text[:-1], "end"] for text in words)])
    pairs = sum(bool(set(one) & set(two)) for one, two in zip(buckets[:300], buckets[300:], strict=True))
    assert pairs >= 290, "27 of 29 trigrams in common"


@pytest.mark.ray
@pytest.mark.slow
def test_ray_spreads_shards_and_changes_nothing(captioned: Workspace, ray_instance: None) -> None:
    here = curate(captioned, CurateConfig(ngram=4))
    folder = Path(captioned.folder("curate").uri)
    shutil.rmtree(folder)
    there = curate(captioned, build(CurateConfig, {"ngram": 4, "ray": {"enabled": True}}))
    assert {part.name: part.digest for part in there.parts} == {part.name: part.digest for part in here.parts}


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_without_room_is_an_error_in_time(captioned: Workspace, ray_instance: None) -> None:
    ray = {"enabled": True, "actors": {"cpus": 64}}
    with pytest.raises(ScheduleError, match=r"1 curate actors with 64 CPU each .* lower curate\.ray\.actors"):
        curate(captioned, build(CurateConfig, {"ngram": 5, "ray": ray}), ClusterConfig(schedule_seconds=2))
