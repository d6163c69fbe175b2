"""The caption stage with the fake engine: additive, resumable, and every failure is a row, never a gap."""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml
from PIL import Image

from captioning.asking import attempts
from captioning.asking.estimate import preview
from captioning.engines.fake import FakeEngine
from pipeline import schemas
from pipeline.errors import ConfigError, EngineError
from pipeline.identity import canonical, digest
from pipeline.workspace import Workspace
from tests.captioning import world

ROOT = Path(__file__).parent.parent.parent
IMAGES, CELLS = 20, 3


def test_every_image_gets_every_caption(tmp_path: Path) -> None:
    made = world.workspace(tmp_path)
    manifest = world.caption(made, world.config())
    rows = world.rows(manifest, made)
    assert len(rows) == IMAGES * CELLS
    assert len({row["caption_id"] for row in rows}) == len(rows)
    assert {row["status"] for row in rows} == {"ok"}
    assert Counter(row["prompt_id"] for row in rows) == {"phrase": IMAGES, "nouns": IMAGES, "style": IMAGES}
    assert {row["model"] for row in rows} == {"fake:demo_vlm"}
    assert manifest.counts["captions"] == len(rows)
    assert manifest.counts["output_tokens"] == sum(row["output_tokens"] for row in rows)
    assert manifest.counts["cached_tokens"] == sum(row["cached_tokens"] for row in rows) > 0
    assert manifest.counts["perspectives"]["style"] == {"captions": IMAGES, "errors": 0}
    assert manifest.warnings == ()
    assert not list(Path(str(made.folder("caption")), attempts.ATTEMPTS).rglob("*.json"))


def test_a_new_prompt_asks_only_its_own_questions(tmp_path: Path, asked: Counter[tuple[str, str]]) -> None:
    made = world.workspace(tmp_path)
    world.caption(made, world.config(prompts={"set": "paper", "only": ["phrase", "nouns"]}))
    assert len(asked) == asked.total() == IMAGES * 2
    asked.clear()
    more = world.caption(made, world.config(chunk_images=7))
    assert asked.total() == IMAGES
    assert len({prompt for _, prompt in asked}) == 1
    asked.clear()
    fewer = world.caption(made, world.config(prompts={"set": "paper", "only": ["nouns"]}))
    assert asked.total() == 0
    assert len(world.rows(more, made)) == IMAGES * 3
    assert Counter(row["prompt_id"] for row in world.rows(fewer, made)) == {"nouns": IMAGES}


def test_new_images_and_samples_add_only_themselves(tmp_path: Path, asked: Counter[tuple[str, str]]) -> None:
    made = world.workspace(tmp_path)
    warm = {"temperature": 0.8}
    world.caption(made, world.config(sampling=warm))
    asked.clear()
    manifest = world.caption(made, world.config(sampling=warm, samples_per_prompt=2))
    assert asked.total() == IMAGES * CELLS
    texts = {(row["key"], row["prompt_id"]): set[str]() for row in world.rows(manifest, made)}
    for row in world.rows(manifest, made):
        texts[row["key"], row["prompt_id"]].add(row["text"])
    assert all(len(said) == 2 for said in texts.values())
    asked.clear()
    (tmp_path / "pictures" / "zz.png").write_bytes(_png((3, 3, 3)))
    world.ingest(made, tmp_path / "pictures", 12)
    world.caption(made, world.config(sampling=warm))
    assert asked.total() == CELLS


def test_a_chain_goes_on_from_the_answer_even_of_an_earlier_run(tmp_path: Path) -> None:
    made = world.workspace(tmp_path, images=5)
    chain = {"set": "holism", "only": ["main_object", "attributes"]}
    world.caption(made, world.config(prompts={"set": "holism", "only": ["main_object"]}))
    later = world.content(world.caption(made, world.config(prompts=chain)), made)
    rows = world.rows(made.manifests("caption")[0], made)
    parents = {row["caption_id"]: row for row in rows if row["prompt_id"] == "main_object"}
    children = [row for row in rows if row["prompt_id"] == "attributes"]
    assert len(children) == 5
    assert all(parents[row["parent_id"]]["key"] == row["key"] for row in children)
    fresh = world.workspace(tmp_path / "other", images=5)
    assert world.content(world.caption(fresh, world.config(prompts=chain)), fresh) == later


def test_a_sample_of_the_prompts_pays_nothing_twice(tmp_path: Path, asked: Counter[tuple[str, str]]) -> None:
    made = world.workspace(tmp_path)
    sampled = world.config(prompts={**world.PROMPTS, "sample": 2})
    manifest = world.caption(made, sampled)
    assert asked.total() == 2 * IMAGES
    assert Counter(row["key"] for row in world.rows(manifest, made)) == dict.fromkeys(
        [row["key"] for row in world.rows(manifest, made)], 2
    )
    asked.clear()
    whole = world.caption(made, world.config())  # the answers that are there are taken over
    assert asked.total() == IMAGES * CELLS - 2 * IMAGES
    fresh = world.workspace(tmp_path / "fresh")
    assert world.content(whole, made) == world.content(world.caption(fresh, world.config()), fresh)
    asked.clear()
    again = world.caption(made, world.config(prompts={**world.PROMPTS, "sample": 1}))
    assert asked.total() == 0
    assert len(world.rows(again, made)) == IMAGES


def test_a_picture_that_occurs_twice_has_its_own_rows_taken_over(tmp_path: Path) -> None:
    made = world.workspace(tmp_path, images=3)
    shutil.copy(tmp_path / "pictures" / "000.png", tmp_path / "pictures" / "000_again.png")
    world.ingest(made, tmp_path / "pictures", 12)
    world.caption(made, world.config(prompts={**world.PROMPTS, "sample": 2}))
    rows = world.rows(world.caption(made, world.config()), made)
    assert len({(row["key"], row["prompt_id"]) for row in rows}) == len(rows) == 4 * CELLS


def test_models_that_split_the_images_and_one_more_model(tmp_path: Path, asked: Counter[tuple[str, str]]) -> None:
    made = world.workspace(tmp_path)
    split = world.caption(made, world.config(models=["a", "b"], mix="split"))
    assert asked.total() == IMAGES * CELLS
    assert {row["model"] for row in world.rows(split, made)} == {"fake:a", "fake:b"}
    asked.clear()
    both = world.caption(made, world.config(models=["a", "b"]))
    assert asked.total() == IMAGES * CELLS  # of 2 x IMAGES x CELLS, half is there
    assert len(world.rows(both, made)) == 2 * IMAGES * CELLS
    asked.clear()
    world.caption(made, world.config(models=["a", "b", "c"]))
    assert asked.total() == IMAGES * CELLS


def test_a_prompt_may_be_drawn_with_a_temperature_of_its_own(tmp_path: Path) -> None:
    entries = yaml.safe_load((ROOT / "captioning" / "prompts" / "paper.yaml").read_text())["prompts"][:2]
    entries[1] |= {"temperature": 0.9, "top_p": 0.8}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "prompts": entries}))
    made = world.workspace(tmp_path, images=3)
    manifest = world.caption(made, world.config(prompts={"set": str(path)}, samples_per_prompt=3))
    drawn = {(row["prompt_id"], row["sampling"], row["sample_index"]) for row in world.rows(manifest, made)}
    warm = canonical({"max_tokens": entries[1]["max_tokens"], "seed": 0, "temperature": 0.9, "top_p": 0.8})
    assert {sample for prompt, _, sample in drawn if prompt == entries[0]["id"]} == {0}
    assert {(s, n) for prompt, s, n in drawn if prompt == entries[1]["id"]} == {(warm, 0), (warm, 1), (warm, 2)}
    with pytest.raises(ConfigError, match=r"samples_per_prompt is 2.*temperature"):
        world.caption(made, world.config(samples_per_prompt=2))


def test_a_plan_says_what_is_missing_and_how_long_it_takes(tmp_path: Path) -> None:
    made = world.workspace(tmp_path)
    source = {"ingest": made.manifests("ingest")[0]}
    (line,) = preview(world.config(), source, made)
    assert line.startswith(
        "fake:demo_vlm: 60 captions by 3 prompts, at most 2,240 output tokens; no run of it has been"
    )
    world.caption(made, world.config())
    assert preview(world.config(), source, made) == ["fake:demo_vlm: nothing is missing"]
    (line,) = preview(world.config(prompts={"set": "paper", "only": ["phrase", "detail"]}), source, made)
    assert line.startswith("fake:demo_vlm: 20 captions by 1 prompt, at most 1,540 output tokens; ")
    assert re.search(r"hours at the [\d,.]+ captions/s of its last run$", line)


def test_any_file_system_will_do(tmp_path: Path) -> None:
    local, remote = world.workspace(tmp_path), Workspace(f"memory://captions-{tmp_path.name}")
    world.ingest(remote, tmp_path / "pictures", 12)
    expected = world.content(world.caption(local, world.config()), local)
    assert world.content(world.caption(remote, world.config()), remote) == expected


def test_a_request_that_raises_costs_only_its_image_and_can_be_retried(
    tmp_path: Path, asked: Counter[tuple[str, str]]
) -> None:
    made = world.workspace(tmp_path)
    ids = world.image_ids(made)
    faulty = world.config(engine={"kind": "fake", "fake": {"raise_on": [ids[2], ids[13]]}})
    manifest = world.caption(made, faulty)
    bad = [row for row in world.rows(manifest, made) if row["status"] == "error"]
    assert {row["image_id"] for row in bad} == {ids[2], ids[13]}
    assert f"cannot look at image {ids[2]}" in next(row["error"] for row in bad if row["image_id"] == ids[2])
    before = {row["caption_id"]: row["created_at"] for row in world.rows(manifest, made) if row["status"] == "ok"}
    asked.clear()
    mended = world.caption(made, world.config(), retry_failed=True)
    assert asked.total() == 2 * CELLS
    rows = world.rows(mended, made)
    assert len(rows) == IMAGES * CELLS
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["created_at"] == before[row["caption_id"]] for row in rows if row["caption_id"] in before)
    assert {part.name for part in mended.parts} > {part.name for part in manifest.parts}  # published parts stay
    assert mended.counts["errors"] == 0


def test_when_everything_fails_the_run_says_so(tmp_path: Path) -> None:
    made = world.workspace(tmp_path, images=4)
    faulty = world.config(engine={"kind": "fake", "fake": {"raise_on": world.image_ids(made)}})
    for _ in range(2):  # the second run finds the failed rows and must not call them a result
        with pytest.raises(EngineError, match=r"all captions failed \(12\).*cannot look at.*--retry-failed"):
            world.caption(made, faulty)
    assert world.caption(made, world.config(), retry_failed=True).counts["errors"] == 0


def test_a_picture_that_does_not_decode_is_an_error_row(tmp_path: Path) -> None:
    from captioning.asking.questions import Questions, Wanted
    from pipeline.shards import ShardReader
    from tests.captioning.test_store import CELLS as CELL_LIST

    good, broken = _png((9, 9, 9)), _png((8, 8, 8))[:-30]
    (tmp_path / "s.tar").write_bytes(good + broken)
    images = [
        {"shard": "s", "key": "a", "image_id": digest(good), "offset": 0, "size": len(good), "status": "ok"},
        {"shard": "s", "key": "b", "image_id": digest(broken), "offset": len(good), "size": len(broken),
         "status": "ok"},
    ]  # fmt: skip
    engine = FakeEngine(world.config().engine.fake)
    questions = Questions(engine, ShardReader({"s": str(tmp_path / "s.tar")}), {})
    rows = questions.ask([Wanted(image, tuple(CELL_LIST)) for image in images])
    assert [(row["key"], row["status"]) for row in rows] == [("a", "ok")] * CELLS + [("b", "error")] * CELLS
    assert "cannot be decoded" in rows[-1]["error"]
    schemas.table(schemas.CAPTIONS, rows)


def test_large_pictures_are_scaled_to_the_cap_and_transparency_shows_white() -> None:
    from captioning.asking.questions import decode

    assert decode(_png((1, 2, 3), size=(400, 100)), 10_000).size == (200, 50)
    assert decode(_png((1, 2, 3), size=(40, 10)), 10_000).size == (40, 10)
    assert decode(_lying((400, 100)), 10_000).size == (50, 200)
    clear = decode(_png((1, 2, 3, 0)), 10_000)
    assert (clear.mode, clear.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_a_model_folder_that_cannot_be_one_is_named_at_once(tmp_path: Path) -> None:
    made = world.workspace(tmp_path, images=2)
    empty = tmp_path / "model"
    for step, problem in (("", "not there"), ("folder", "config.json"), ("config", "no weights")):
        if step == "folder":
            empty.mkdir()
        if step == "config":
            (empty / "config.json").write_text('{"model_type": "llava"}')
        with pytest.raises(EngineError) as caught:
            world.caption(made, world.config(engine={"kind": "transformers"}, models=[str(empty)]))
        assert str(empty) in str(caught.value)
        assert problem in str(caught.value)
        assert "safetensors" in str(caught.value)


def test_an_unknown_prompt_is_a_configuration_error(tmp_path: Path) -> None:
    made = world.workspace(tmp_path, images=2)
    with pytest.raises(ConfigError, match="smell"):
        world.caption(made, world.config(prompts={"set": "paper", "only": ["smell"]}))


def _lying(size: tuple[int, int]) -> bytes:
    """A JPEG that its camera held upright."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", size).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def _png(colour: tuple[int, ...], size: tuple[int, int] = (24, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB" if len(colour) == 3 else "RGBA", size, colour).save(buffer, "PNG")
    return buffer.getvalue()
