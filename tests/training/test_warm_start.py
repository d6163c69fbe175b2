"""Warm starts: open_clip checkpoints, models of ours with other branches, image towers of transformers models."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.errors import ConfigError
from training.checkpoint import describe, model_files
from training.config import BranchKind, BranchOptions, RunConfig
from training.export import export
from training.model import HolisticCLIP
from training.positions import fit_text_positions
from training.warm_start import branch_sources, warm_start
from training.weights import weights_digest

SLOTS = ("detail", "style", "nouns")
NAMES = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


def test_the_class_token_is_copied_and_positions_are_resampled(
    tiny_architecture: dict[str, Any], tmp_path: Path
) -> None:
    plain = open_clip.CLIP(**tiny_architecture)
    torch.save({"state_dict": {f"module.{k}": v for k, v in plain.state_dict().items()}}, tmp_path / "epoch.pt")
    larger = {**tiny_architecture, "vision_cfg": {**tiny_architecture["vision_cfg"], "image_size": 48}}
    model = HolisticCLIP(larger, SLOTS)
    warm_start(model, tmp_path / "epoch.pt")
    token, copies = plain.visual.class_embedding, model.visual.class_embedding
    assert copies.shape == (3, 32)
    assert F.cosine_similarity(copies, token.expand(3, -1)).min() > 0.98
    assert torch.equal(copies[0], token)
    assert not torch.equal(copies[1], copies[2])
    assert model.visual.positional_embedding.shape == (37, 32)
    torch.testing.assert_close(model.visual.conv1.weight, plain.visual.conv1.weight)
    several = HolisticCLIP(larger, SLOTS, BranchOptions(projection="branch"))
    warm_start(several, tmp_path / "epoch.pt")
    assert all(torch.equal(projection, plain.visual.proj) for projection in several.visual.proj)


def test_mlp_layers_are_copies_of_the_pretrained_one(tiny_architecture: dict[str, Any], tmp_path: Path) -> None:
    plain = open_clip.CLIP(**tiny_architecture).eval()
    torch.save(plain.state_dict(), tmp_path / "clip.pt")
    model = HolisticCLIP(tiny_architecture, SLOTS, BranchOptions(kind="mlp", blocks=2)).eval()
    warm_start(model, tmp_path / "clip.pt")
    for ours, theirs in zip(model.visual.blocks, plain.visual.transformer.resblocks, strict=True):
        layer, source = ours.mlp.c_proj, theirs.mlp.c_proj
        assert torch.equal(layer.weight[0], source.weight)
        assert not torch.equal(layer.weight[1], layer.weight[2])
        assert F.cosine_similarity(layer.weight.flatten(1), source.weight.flatten()[None]).min() > 0.98
        assert torch.equal(layer.bias, source.bias.expand(3, -1))
    image_BCSS = torch.randn(4, 3, 32, 32)
    near = F.cosine_similarity(model.encode_branches(image_BCSS), plain.encode_image(image_BCSS)[:, None], dim=-1)
    assert near.min() > 0.98


@given(targets=NAMES, sources=NAMES)
def test_branches_are_matched_by_name_then_in_order(targets: list[str], sources: list[str]) -> None:
    rows = branch_sources(targets, sources)
    assert all(sources[row] == name for name, row in zip(targets, rows, strict=True) if name in sources)
    assert len(set(rows)) == min(len(targets), len(sources))  # none is used twice before all are used
    others = [row for name, row in zip(targets, rows, strict=True) if name not in sources]
    unclaimed = [index for index, name in enumerate(sources) if name not in targets]
    assert others[: len(unclaimed)] == unclaimed[: len(others)]
    assert branch_sources(sources, sources) == list(range(len(sources)))
    assert branch_sources(targets, [None]) == [0] * len(targets)


def save(model: HolisticCLIP, folder: Path, recipe: RunConfig) -> Path:
    folder.mkdir()
    for name, data in model_files(model, recipe, 1).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("kind", ["cls", "mlp", "query"])
def test_the_number_of_branches_changes_by_name(
    tiny_architecture: dict[str, Any], tmp_path: Path, kind: BranchKind
) -> None:
    options = BranchOptions(kind=kind, blocks=1, projection="branch")
    recipe = RunConfig(model=tiny_architecture, slots=SLOTS)
    trained = HolisticCLIP(tiny_architecture, SLOTS, options).eval()
    folder = save(trained, tmp_path / "model", recipe)
    grown = HolisticCLIP(tiny_architecture, ("nouns", "phrase", "detail", "sentence", "background"), options).eval()
    warm_start(grown, folder)
    for name in trained.visual.branch_parameters:
        ours, theirs = grown.visual.get_parameter(name), trained.visual.get_parameter(name)
        assert torch.equal(ours[0], theirs[2])  # by name
        assert torch.equal(ours[2], theirs[0])
        assert torch.equal(ours[1], theirs[1])  # what was left
        noised = name in trained.visual.noised_parameters
        assert torch.equal(ours[3], theirs[0]) != noised  # then from the first again
        assert torch.equal(ours[4], theirs[1]) != noised
    image_BCSS = torch.randn(2, 3, 32, 32)
    if kind != "cls":  # class tokens meet in the patches, so more of them change every branch
        torch.testing.assert_close(grown.encode_branches(image_BCSS)[:, 2], trained.encode_branches(image_BCSS)[:, 0])
    shrunk = HolisticCLIP(tiny_architecture, ("style",), options)
    if kind == "query":
        with pytest.raises(ConfigError, match=r"are queries, .*; set train\.branches to 2 or more"):
            warm_start(shrunk, folder)
    else:
        warm_start(shrunk, folder)
        assert torch.equal(shrunk.visual.proj, trained.visual.proj[1])
    if kind == "mlp":
        torch.testing.assert_close(shrunk.encode_branches(image_BCSS)[:, 0], trained.encode_branches(image_BCSS)[:, 1])


def test_branches_of_another_kind_are_refused(tiny_architecture: dict[str, Any], tmp_path: Path) -> None:
    recipe = RunConfig(model=tiny_architecture, slots=SLOTS)
    folder = save(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "model", recipe)
    with pytest.raises(ConfigError, match=r"kind cls, train\.branch_kind is mlp; set it to cls"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS, BranchOptions(kind="mlp", blocks=1)), folder)


@pytest.mark.parametrize(
    ("have", "want", "said"),
    [
        (BranchOptions(projection="branch"), BranchOptions(), r"train\.projection is shared; set it to branch"),
        (
            BranchOptions(kind="mlp", blocks=2),
            BranchOptions(kind="mlp", blocks=1),
            r"layers in 2 blocks, train\.branch_blocks is 1; set it to 2",
        ),
    ],
)
def test_branches_that_cannot_go_on_are_refused(
    tiny_architecture: dict[str, Any], tmp_path: Path, have: BranchOptions, want: BranchOptions, said: str
) -> None:
    recipe = RunConfig(model=tiny_architecture, slots=SLOTS)
    folder = save(HolisticCLIP(tiny_architecture, SLOTS, have), tmp_path / "model", recipe)
    with pytest.raises(ConfigError, match=said):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS, want), folder)
    folder = save(HolisticCLIP(tiny_architecture, SLOTS, want), tmp_path / "other", recipe)
    warm_start(HolisticCLIP(tiny_architecture, SLOTS, have), folder)  # the other way there is something to start from


@pytest.mark.parametrize(("have", "want"), [(77, 248), (77, 100), (77, 77), (77, 32), (12, 40)])
def test_text_positions_keep_their_beginning_and_stretch_the_rest(have: int, want: int) -> None:
    table_PW = torch.stack([torch.arange(float(have)), torch.randn(have)], dim=1)
    fitted_LW = fit_text_positions(table_PW, want)
    assert fitted_LW.shape == (want, 2)
    kept = min(20, want) if have > 21 else 0
    assert torch.equal(fitted_LW[:kept], table_PW[:kept])
    assert (fitted_LW[1:, 0] > fitted_LW[:-1, 0]).all()
    assert fitted_LW[-1, 0] == (have - 1 if want >= have else want - 1)


def test_a_longer_context_reads_short_texts_as_before(tiny_architecture: dict[str, Any], tmp_path: Path) -> None:
    plain = open_clip.CLIP(**tiny_architecture).eval()
    torch.save(plain.state_dict(), tmp_path / "clip.pt")
    longer = {**tiny_architecture, "text_cfg": {**tiny_architecture["text_cfg"], "context_length": 248}}
    model = HolisticCLIP(longer, ("image",)).eval()
    warm_start(model, tmp_path / "clip.pt")
    text_TL = open_clip.SimpleTokenizer(context_length=32)(["a red star", "two small boats on a calm sea"])
    torch.testing.assert_close(model.encode_text(text_TL), plain.encode_text(text_TL))
    assert model.encode_text(torch.randint(1, 100, (1, 248))).isfinite().all()


@pytest.mark.parametrize("prefix", ["", "vision_model.", "model.vision_tower.vision_model."])
def test_a_transformers_tower_gives_the_same_features(
    tiny_architecture: dict[str, Any], tmp_path: Path, prefix: str
) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    settings = CLIPVisionConfig(
        hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        hidden_act="gelu",
    )  # fmt: skip
    theirs = CLIPVisionModel(settings).eval()
    bare = {name.removeprefix("vision_model."): value for name, value in theirs.state_dict().items()}
    state = {prefix + name: value.contiguous() for name, value in bare.items()}
    if prefix.startswith("model."):
        state["model.language_model.embed_tokens.weight"] = torch.zeros(4, 4)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    ours = HolisticCLIP(tiny_architecture, ("image",)).eval()
    text_before = ours.token_embedding.weight.clone()
    warm_start(ours, tmp_path)
    image_BCSS = torch.randn(2, 3, 32, 32)
    class_BHW, _ = ours.visual.tokens(image_BCSS)
    torch.testing.assert_close(class_BHW[:, 0], theirs(image_BCSS).pooler_output, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.token_embedding.weight, text_before)


def test_what_does_not_fit_is_refused(tiny_architecture: dict[str, Any], tmp_path: Path) -> None:
    deeper = {**tiny_architecture, "vision_cfg": {**tiny_architecture["vision_cfg"], "layers": 3}}
    torch.save(open_clip.CLIP(**deeper).state_dict(), tmp_path / "deeper.pt")
    with pytest.raises(ConfigError, match="does not fit"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "deeper.pt")
    wider = {**tiny_architecture, "vision_cfg": {**tiny_architecture["vision_cfg"], "width": 64}}
    torch.save(open_clip.CLIP(**wider).state_dict(), tmp_path / "wider.pt")
    with pytest.raises(ConfigError, match=r"does not fit.*size mismatch"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "wider.pt")
    classless = open_clip.CLIP(**tiny_architecture).state_dict()
    classless["visual.positional_embedding"] = classless["visual.positional_embedding"][1:]
    torch.save(classless, tmp_path / "classless.pt")
    with pytest.raises(ConfigError, match="image positions are not a class token's and a square grid's"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "classless.pt")
    torch.save({"epoch": 3, "weights": classless}, tmp_path / "nested.pt")
    with pytest.raises(ConfigError, match="its entry 'epoch' is no tensor"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "nested.pt")
    for name, content in (("list", [1]), ("empty", {})):
        torch.save(content, tmp_path / f"{name}.pt")
        with pytest.raises(ConfigError, match="cannot be read as weights"):
            warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / f"{name}.pt")
    (tmp_path / "torn").mkdir()
    torch.save(classless, tmp_path / "torn" / "clip.pt")
    (tmp_path / "torn" / "config.json").write_text('{"branches')
    with pytest.raises(ConfigError, match=r"config\.json is no JSON"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "torn" / "clip.pt")
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "broken.pt")
    with pytest.raises(ConfigError, match="no checkpoint at"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), tmp_path / "absent.pt")


@pytest.mark.parametrize("form", ["holism", "open_clip", "checkpoint"])
def test_weights_that_were_trained_with_other_inputs_are_refused(
    tiny_architecture: dict[str, Any], tmp_path: Path, form: str
) -> None:
    """A state dict does not tell, but a file beside it does, and our checkpoints do."""
    other = RunConfig(model=tiny_architecture, slots=SLOTS, image_mean=(0.5, 0.5, 0.5))
    model = HolisticCLIP(tiny_architecture, ("image",))
    source = save(model, tmp_path / "model", other)
    if form == "open_clip":
        source = tmp_path / "out"
        export(tmp_path / "model", source, ["open_clip"])
    if form == "checkpoint":
        source = tmp_path / "step-1.pt"
        torch.save({"model": model.state_dict(), "description": describe(model, other, 1)}, source)
    warm_start(HolisticCLIP(tiny_architecture, SLOTS), source, other)
    with pytest.raises(ConfigError, match=r"another normalisation; set train\.image_mean to \[0\.5, 0\.5, 0\.5\]"):
        warm_start(HolisticCLIP(tiny_architecture, SLOTS), source, RunConfig(model=tiny_architecture, slots=SLOTS))
    with pytest.raises(ConfigError, match=r"another GELU than train\.model has; name the model without"):
        warm_start(HolisticCLIP({**tiny_architecture, "quick_gelu": True}, SLOTS), source, other)


def test_weights_that_open_clip_knows_are_fetched_by_tag(
    tiny_architecture: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = open_clip.CLIP(**tiny_architecture)
    torch.save(plain.state_dict(), tmp_path / "fetched.pt")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda _: str(tmp_path / "fetched.pt"))
    model = HolisticCLIP(tiny_architecture, SLOTS)
    warm_start(model, "open_clip:laion2b_s34b_b79k", RunConfig(model="ViT-B-32"))
    assert torch.equal(model.visual.conv1.weight, plain.visual.conv1.weight)
    for tag, name, said in (
        ("nowhere", "ViT-B-32", r"has no weights 'nowhere'.*laion2b_s34b_b79k"),
        ("openai", "ViT-B-32", r"set train\.model to ViT-B-32-quickgelu"),
        ("laion2b_s32b_b82k", "ViT-L-14", r"another normalisation; set train\.image_mean to \[0\.5, 0\.5, 0\.5\]"),
        ("openai", tiny_architecture, "name the model as open_clip does"),
    ):
        with pytest.raises(ConfigError, match=said):
            warm_start(model, f"open_clip:{tag}", RunConfig(model=name))

    def fail(_: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(ConfigError, match=r"could not be fetched \(no network\)"):
        warm_start(model, "open_clip:laion2b_s34b_b79k", RunConfig(model="ViT-B-32"))


def test_other_weights_are_another_start(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    first = weights_digest(tmp_path)
    assert first == weights_digest(file)
    file.write_bytes(b"two")
    assert weights_digest(tmp_path) != first
    assert weights_digest("open_clip:openai") != weights_digest("open_clip:laion2b_s34b_b79k")
