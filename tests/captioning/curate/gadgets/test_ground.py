"""Grounding: a model that has learnt colours tells captions of another picture, and no score is computed twice."""

from __future__ import annotations

import io
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pytest
import small_workspace
import tiny_clip
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_clip import COLORS

import training
from captioning.curate.config import CurateConfig
from captioning.curate.corpus.score_histogram import ScoreHistogram, needs_histograms, thresholds
from captioning.curate.draft import Draft
from captioning.curate.gadget import run_gadgets
from captioning.curate.gadgets.ground import Ground, GroundConfig, Threshold
from captioning.curate.measures.config import ScorerConfig
from captioning.curate.measures.dual_encoder import DualEncoder, load_encoder, refuse_own_checkpoint, scorer_digest
from captioning.curate.measures.image_text import ImageText
from captioning.curate.stage import STAGE as CURATE
from captioning.store import shard_captions
from flows import services
from flows.config import HolismConfig
from pipeline import schemas
from pipeline.config import build
from pipeline.errors import ConfigError, InputError, StoreError
from pipeline.identity import image_id
from pipeline.ingest import shard_images, shard_names, shard_uris
from pipeline.shards import ShardReader
from pipeline.stage import Outcome
from pipeline.storage import Location
from training.checkpoint import model_files, new_model
from training.config import RunConfig

COLOR_NAMES = list(COLORS)


@dataclass(frozen=True)
class Pile:
    """Pictures of the eight colours one behind the other in a file, as a shard's tar holds them."""

    file: Path

    @classmethod
    def write(cls, folder: Path) -> Pile:
        return cls(folder / "pile").fill()

    def fill(self) -> Pile:
        self.file.write_bytes(b"".join(png(color) for color in COLORS) + b"no picture at all")
        return self

    def images_of(self, shard: str) -> pa.Table:
        rows, offset = [], 0
        for color, data in [*((color, png(color)) for color in COLORS), ("broken", b"no picture at all")]:
            row = {"shard": shard, "key": color, "image_id": image_id(data), "status": "ok"}
            rows.append({**row, "offset": offset, "size": len(data)})
            offset += len(data)
        return schemas.table(schemas.IMAGES, rows)

    def tar_of(self, shard: str) -> str:
        return str(self.file)


def png(color: str) -> bytes:
    buffer = io.BytesIO()
    tiny_clip.picture(color, seed=10**6).save(buffer, "PNG")
    return buffer.getvalue()


def draft(said: Sequence[tuple[str, str]], perspective: str = "detail") -> Draft:
    """Captions (picture's colour, text), numbered in their order."""
    data = {color: png(color) for color in COLORS} | {"broken": b"no picture at all"}
    columns: dict[str, list[Any]] = {
        "caption_id": [f"{number:04}" for number in range(len(said))],
        "key": [color for color, _ in said],
        "shard": ["s"] * len(said),
        "image_id": [image_id(data.get(color, b"unknown")) for color, _ in said],
        "text": [text for _, text in said],
        "perspective": [perspective] * len(said),
    }
    return Draft(columns)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> ScorerConfig:
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    return ScorerConfig(model=tiny_clip.write_model(folder), batch_size=5, device="cpu")


def image_text(scorer: ScorerConfig, folder: Path) -> ImageText:
    return ImageText(scorer, scorer_digest(scorer), Pile.write(folder), Location.of(folder / "measures"))


RIGHT = [(color, tiny_clip.caption(color, number)) for number, color in enumerate(COLORS)]
WRONG = [(color, tiny_clip.caption(COLOR_NAMES[number - 3], number)) for number, color in enumerate(COLORS)]


def test_captions_of_another_picture_are_dropped_and_right_ones_stay(scorer: ScorerConfig, tmp_path: Path) -> None:
    made = draft([*RIGHT, *WRONG])
    run_gadgets(made, [Ground(image_text(scorer, tmp_path), {"detail": 0.5})])
    text_of = dict(RIGHT)
    for row, verdict in enumerate(made.verdicts):
        right = text_of[made.columns["key"][row]] == made.texts[row]
        assert verdict == (None if right else ("ground", "ungrounded")), (made.columns["key"][row], made.texts[row])
        assert (made.scores[row]["image_text"] >= 0.5) is right


def test_a_quantile_finds_the_same_captions(scorer: ScorerConfig, tmp_path: Path) -> None:
    measured, made = image_text(scorer, tmp_path), draft([*RIGHT, *WRONG])
    config = GroundConfig(scorer=scorer, threshold=Threshold(quantile=0.5))
    statistic = ScoreHistogram(measured, measured.digest)
    limits = thresholds(config, statistic.merge(iter([statistic.of_shard(made)])))
    run_gadgets(made, [Ground(measured, limits)])
    dropped = {(made.columns["key"][row], made.texts[row]) for row, verdict in enumerate(made.verdicts) if verdict}
    assert dropped == set(WRONG)


def test_scores_are_cosines_and_are_computed_once(
    scorer: ScorerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"images": 0, "texts": 0}
    images, texts = DualEncoder.encode_images, DualEncoder.encode_texts

    def encode_images(self: DualEncoder, sources: Any, load: Any) -> np.ndarray:
        counts["images"] += len(sources)
        return images(self, sources, load)

    def encode_texts(self: DualEncoder, given: Any) -> np.ndarray:
        counts["texts"] += len(given)
        return texts(self, given)

    monkeypatch.setattr(DualEncoder, "encode_images", encode_images)
    monkeypatch.setattr(DualEncoder, "encode_texts", encode_texts)
    measured = pickle.loads(pickle.dumps(image_text(scorer, tmp_path)))  # as it comes to other processes
    said = [*RIGHT, *WRONG, *[(color, "the same for all") for color in COLORS]]
    made = draft(said)
    first = measured(made, range(len(made)))
    assert counts == {"images": 8, "texts": len({text for _, text in said})}  # not one of them twice
    np.testing.assert_array_equal(measured(made, range(len(made)))[::-1], measured(made, range(len(made))[::-1]))
    made.texts[3] = "another text"
    changed = measured(made, range(len(made)))
    assert counts == {"images": 9, "texts": len({text for _, text in said}) + 1}
    np.testing.assert_array_equal(np.delete(changed, 3), np.delete(first, 3))

    encoder = load_encoder(scorer, scorer_digest(scorer), None)
    for row in (0, 3, 11):
        key = made.columns["key"][row]
        alone = images(encoder, [key], lambda color: tiny_clip.picture(color, seed=10**6))
        expected = float(alone[0] @ texts(encoder, [made.texts[row]])[0])
        assert changed[row] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("short", [True, False])
def test_padding_is_left_out_where_it_changes_nothing(short: bool) -> None:
    torch.manual_seed(0)
    run = RunConfig.model_validate({"model": tiny_clip.MODEL, "slots": ["detail"]})
    model = new_model(run) if short else open_clip.model.CLIP(**tiny_clip.MODEL)
    encoder = DualEncoder(model, None, open_clip.SimpleTokenizer(), "cpu", batch_size=2)
    assert encoder._reads_short_texts is short
    said = ["red", "A very long text about everything that is blue. " * 12, "", *(text for _, text in RIGHT), "red"]
    with torch.inference_mode():
        padded = model.encode_text(encoder.tokenizer(said), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_texts(said), padded, atol=1e-5)


def test_a_picture_that_cannot_be_decoded_is_not_judged(scorer: ScorerConfig, tmp_path: Path) -> None:
    made = draft([("broken", "A red surface."), ("red", "A red surface.")])
    run_gadgets(made, [Ground(image_text(scorer, tmp_path), {"": 0.5})])
    assert made.verdicts == [None, None]
    assert [("image_text" in scores) for scores in made.scores] == [False, True]


def test_captions_of_unknown_images_are_named(scorer: ScorerConfig, tmp_path: Path) -> None:
    made = draft([("elsewhere", "A red surface.")])
    with pytest.raises(StoreError, match="shard 's' has captions of the image"):
        image_text(scorer, tmp_path)(made, [0])


def a_measure(scores: dict[str, float]) -> Any:
    return lambda made, rows: np.array([scores[made.texts[row]] for row in rows], np.float32)


@settings(max_examples=40)
@given(
    scores=st.lists(st.floats(-1, 1, width=32) | st.just(float("nan")), min_size=1, max_size=60),
    quantile=st.floats(0, 0.99),
    cuts=st.lists(st.integers(0, 60), max_size=3),
    order=st.randoms(),
)
def test_quantiles_drop_their_share_however_shards_are_cut(
    scores: list[float], quantile: float, cuts: list[int], order: Any
) -> None:
    config = GroundConfig(threshold=Threshold(quantile=quantile))
    known = {str(number): score for number, score in enumerate(scores)}
    statistic = ScoreHistogram(a_measure(known), "digest")
    texts = list(known)
    whole = statistic.merge(iter([statistic.of_shard(draft([("red", text) for text in texts]))]))
    order.shuffle(texts)
    edges = [0, *sorted(cut % (len(texts) + 1) for cut in cuts), len(texts)]
    pieces = [texts[a:b] for a, b in pairwise(edges)]
    tables = [statistic.of_shard(draft([("red", text) for text in piece])) for piece in pieces]
    assert statistic.merge(iter(tables)) == whole

    limits = thresholds(config, whole)
    made = draft([("red", text) for text in texts])
    Ground(a_measure(known), limits).apply(made)
    scored = [score for score in scores if score == score]
    dropped = sum(verdict is not None for verdict in made.verdicts)
    assert dropped <= quantile * len(scored)
    if scored:  # the next bin would be too many
        assert sum(score <= limits["detail"] + 2 / 4096 for score in scored) >= min(dropped + 1, len(scored))


def test_thresholds_by_perspective() -> None:
    config = build(
        GroundConfig,
        {"threshold": {"value": 0.2}, "perspectives": {"style": {"quantile": 0.5}, "nouns": {"value": 0}}},
    )
    assert needs_histograms(config)
    assert not needs_histograms(GroundConfig(threshold=Threshold(value=0.2)))
    known = {"low": 0.1, "high": 0.6}
    statistic = ScoreHistogram(a_measure(known), "digest")
    tables = [
        statistic.of_shard(draft([("red", "low"), ("blue", "high")], name)) for name in ("style", "detail", "nouns")
    ]
    limits = thresholds(config, statistic.merge(iter(tables)))
    assert limits == {"": 0.2, "detail": 0.2, "nouns": 0.0, "style": pytest.approx(0.6, abs=1e-3)}
    for name, expected in {"style": 1, "detail": 1, "nouns": 0, "unheard of": 1}.items():
        made = draft([("red", "low"), ("blue", "high")], name)
        Ground(a_measure(known), limits).apply(made)
        assert sum(verdict is not None for verdict in made.verdicts) == expected, name


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "either model"),
        ({"model": "ViT-B-32"}, "pretrained is missing"),
        ({"model": "ViT-B-32", "checkpoint": "x"}, "either model"),
    ],
)
def test_a_scorer_is_named_in_one_way(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(ScorerConfig, section)


def test_a_scorer_that_does_not_load_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretrained is .*nothing is there"):
        scorer_digest(ScorerConfig(model="ViT-B-32", pretrained=str(tmp_path / "absent.pt")))
    torn = tmp_path / "torn.pt"
    torn.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"does not load: ViT-B-32 with .*torn\.pt") as error:
        load_encoder(ScorerConfig(model="ViT-B-32", pretrained=str(torn)), "digest", None)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not load: ViT-Z"):
        load_encoder(ScorerConfig(model="ViT-Z", pretrained=str(torn)), "digest", None)


def test_the_weights_are_the_identity(tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    config = ScorerConfig(model="ViT-B-32", pretrained=str(weights))
    weights.write_bytes(b"one")
    one = scorer_digest(config)
    assert one == scorer_digest(config)
    weights.write_bytes(b"two")
    assert scorer_digest(config) != one
    assert scorer_digest(ScorerConfig(model="ViT-B-32", pretrained="openai")) != one


def test_a_checkpoint_of_this_workspace_is_refused(tmp_path: Path) -> None:
    own, other = tmp_path / "ws" / "train" / "run" / "model", tmp_path / "ws2" / "train" / "run" / "model"
    for folder in (own, other):
        folder.mkdir(parents=True)
    (tmp_path / "link").symlink_to(own)
    workspace = Location.of(tmp_path / "ws")
    for path in (own, tmp_path / "link", tmp_path / "ws2" / ".." / "ws" / "train" / "run" / "model"):
        with pytest.raises(ConfigError, match="lies in this very workspace"):
            refuse_own_checkpoint(ScorerConfig(checkpoint=str(path)), workspace)
    refuse_own_checkpoint(ScorerConfig(checkpoint=str(other)), workspace)
    refuse_own_checkpoint(ScorerConfig(model="ViT-B-32", pretrained="openai"), workspace)


def test_a_checkpoint_is_loaded_by_what_is_handed_in(scorer: ScorerConfig, tmp_path: Path) -> None:
    own = load_encoder(scorer, scorer_digest(scorer), None)
    asked: list[tuple[str, str]] = []

    def load(path: str, device: str) -> tuple[Any, Any, Any]:
        asked.append((path, device))
        return own.model, own.preprocess, own.tokenizer

    (tmp_path / "config.json").write_text("{}")
    config = ScorerConfig(checkpoint=str(tmp_path), device="cpu")
    vectors = load_encoder(config, "digest", load).encode_texts(["red"])
    np.testing.assert_allclose(vectors, own.encode_texts(["red"]), atol=1e-6)
    assert asked == [(str(tmp_path), "cpu")]
    with pytest.raises(ConfigError, match="needs the loader"):
        load_encoder(config, "digest", None)


def test_in_the_stage_a_changed_threshold_scores_nothing_again(
    scorer: ScorerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = small_workspace.ingest(tmp_path)
    small_workspace.caption(workspace)

    def kept(threshold: Threshold) -> tuple[int, int]:
        config = CurateConfig(ground=GroundConfig(scorer=scorer, threshold=threshold))
        counts = small_workspace.curate(workspace, config).counts
        assert counts["seen_by_gadget"]["ground"] > 150
        return counts["kept"], counts["dropped_by_gadget"]["ground"]

    assert kept(Threshold(quantile=0.0))[1] == 0
    monkeypatch.setattr(DualEncoder, "encode_images", lambda *_: pytest.fail("a picture was encoded again"))
    monkeypatch.setattr(DualEncoder, "encode_texts", lambda *_: pytest.fail("a text was encoded again"))
    seen = 200  # 29 images of 7 captions, less what other gadgets dropped
    assert 0.4 * seen < kept(Threshold(quantile=0.5))[1] <= 0.5 * seen
    assert kept(Threshold(value=-1))[1] == 0
    with pytest.raises(InputError, match="dropped as ungrounded"):
        kept(Threshold(value=1))


def test_in_the_stage_other_weights_are_other_verdicts(scorer: ScorerConfig, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    assert scorer.model is not None
    folder = shutil.copytree(scorer.model.removeprefix("local-dir:"), tmp_path / "clip")
    weights = folder / "open_clip_model.safetensors"
    workspace = small_workspace.ingest(tmp_path, images=8)
    small_workspace.caption(workspace)
    ground = GroundConfig(
        scorer=ScorerConfig(model=f"local-dir:{folder}", device="cpu"), threshold=Threshold(value=-1)
    )

    def scores() -> list[Any]:
        outcome = CURATE.run(small_workspace.curate_run(workspace, CurateConfig(ground=ground)))
        shard = shard_names(workspace.manifests("ingest")[0])[0]
        return [row["scores"] for row in verdicts(outcome, shard)]

    first = scores()
    assert scores() == first
    save_file({name: value + 0.05 * torch.randn_like(value) for name, value in load_file(weights).items()}, weights)
    assert scores() != first, "the same path, but another model"


def test_a_holism_checkpoint_scores_when_flows_hands_its_loader_in(tmp_path: Path) -> None:
    run = RunConfig.model_validate({"model": tiny_clip.MODEL, "slots": ["detail", "style"]})
    for name, data in model_files(new_model(run), run, step=0).items():
        Location.of(tmp_path / "model" / name).write(data)
    workspace = small_workspace.ingest(tmp_path)
    small_workspace.caption(workspace)
    scorer = ScorerConfig(checkpoint=str(tmp_path / "model"), device="cpu")
    plan = small_workspace.curate_run(workspace, CurateConfig(ground=GroundConfig(scorer=scorer)))
    project = HolismConfig.model_validate({"workspace": str(tmp_path / "ws"), "ingest": plan.inputs["ingest"].config})
    handed = services.of(project, plan.inputs, workspace)
    outcome = CURATE.run(replace(plan, services=handed))
    assert 0 < outcome.counts["dropped_by_gadget"]["ground"] < 0.06 * outcome.counts["captions"]

    model, preprocess, tokenizer = training.load(str(tmp_path / "model"))
    shard = shard_names(plan.inputs["ingest"])[0]
    scored = next(row for row in verdicts(outcome, shard) if row["keep"])
    image = next(row for row in shard_images(plan.inputs["ingest"], shard).to_pylist() if row["key"] == scored["key"])
    captions = shard_captions(plan.inputs["caption"], shard).to_pylist()
    text = next(row["text"] for row in captions if row["caption_id"] == scored["caption_id"])
    data = ShardReader(shard_uris(plan.inputs["ingest"])).read(shard, image["offset"], image["size"])
    with torch.inference_mode():
        image_D = model.encode_image(preprocess(Image.open(io.BytesIO(data)).convert("RGB"))[None], normalize=True)
        text_D = model.encode_text(tokenizer([scored["clean_text"] or text]), normalize=True)
    assert dict(scored["scores"])["image_text"] == pytest.approx(float(image_D @ text_D.T), abs=1e-5)


def verdicts(outcome: Outcome, shard: str) -> list[dict[str, Any]]:
    part = next(part for part in outcome.parts if part.name.startswith("verdicts/") and part.detail["shard"] == shard)
    rows: list[dict[str, Any]] = schemas.read(Location.of(outcome.store) / part.name, schemas.VERDICTS).to_pylist()
    return rows
