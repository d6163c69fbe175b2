"""Exports: what other programs load gives the model's own outputs."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import yaml
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

import training
from pipeline import pictures
from pipeline.errors import ConfigError, InputError
from training import export as exporting
from training.checkpoint import model_files, new_model
from training.config import RunConfig
from training.export import export
from training.model import HolisticCLIP
from training.model_card import Facts

Recipe = Callable[..., dict[str, Any]]


@pytest.fixture
def saved(tmp_path: Path, recipe: Recipe) -> Callable[..., tuple[HolisticCLIP, Path]]:
    """A model of some recipe, and the folder a finished run would have left it in."""

    def make(**changes: Any) -> tuple[HolisticCLIP, Path]:
        torch.manual_seed(0)
        config = RunConfig(**recipe(**changes))
        model = new_model(config).eval()
        folder = tmp_path / "run" / "model"
        folder.mkdir(parents=True)
        for name, data in model_files(model, config, 7).items():
            (folder / name).write_bytes(data)
        return model, folder

    return make


@pytest.mark.parametrize("options", [{"isolation": "full"}, {"branch_kind": "mlp"}, {"branch_kind": "query"}])
def test_holisms_own_form_loads_back(saved: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    model, folder = saved(branch_blocks=2, **options)
    figures = {"scenes": {"macro_accuracy object": {"value": 0.75, "chance": 0.1}, "own_branch_wins": ["style"]}}
    facts = Facts({"run": "holism, fingerprint 0123", "captioned by": "demo_vlm (revision abcd)"}, figures)
    assert export(folder, tmp_path / "out", ["holism"], facts) == ["README.md", "config.json", "model.safetensors"]
    again, preprocess, tokenizer = training.load(tmp_path / "out")
    image = preprocess(Image.new("RGB", (50, 40), (10, 200, 90)))[None]
    text = tokenizer(["a red kite"])
    assert torch.equal(again.encode_branches(image), model.encode_branches(image))
    assert torch.equal(again.encode_text(text), model.encode_text(text))
    assert (again.slots, again.options) == (model.slots, model.options)
    card = (tmp_path / "out" / "README.md").read_text()
    for said in ("| style | style, any granularity |", "fingerprint 0123", "abcd", "training.load", "| steps | 7 |"):
        assert said in card
    assert "| scenes | macro accuracy object | 75.0 | 10.0 |" in card
    front = yaml.safe_load(card.split("---")[1])
    assert (front["library_name"], front["pipeline_tag"]) == ("holism", "zero-shot-image-classification")
    assert "onnx" not in card


def test_the_card_knows_what_open_clip_fills_in(saved: Any, tmp_path: Path, tiny_architecture: dict[str, Any]) -> None:
    """Towers spelled out may leave sizes to open_clip."""
    towers = {
        name: {key: value for key, value in tiny_architecture[name].items() if key != "layers"}
        for name in ("vision_cfg", "text_cfg")
    }
    _, folder = saved(model={**tiny_architecture, **towers})
    export(folder, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| image tower | ViT, width 32, 12 blocks, patches of 8 px, images of 32 × 32 |" in card
    assert "| text tower | width 32, 12 blocks, 32 tokens |" in card


@pytest.mark.parametrize("kind", ["cls", "mlp", "query"])
def test_a_lone_branch_loads_in_open_clip(saved: Any, tmp_path: Path, kind: str) -> None:
    model, folder = saved(
        branches=1, losses={"o2m": 1.0}, branch_kind=kind, context_length=40, image_mean=(0.5, 0.5, 0.5)
    )
    export(folder, tmp_path / "out", ["open_clip", "holism"])
    place = f"local-dir:{tmp_path / 'out'}"
    theirs, _, preprocess = open_clip.create_model_and_transforms(place)
    theirs.eval()
    picture = Image.new("RGB", (50, 40), (10, 200, 90))
    _, our_preprocess, our_tokenizer = training.load(folder)
    image = preprocess(picture)[None]
    assert torch.equal(image, our_preprocess(picture)[None])
    texts = ["a red kite", "a long text " * 30]
    text = open_clip.get_tokenizer(place)(texts)
    assert torch.equal(text, our_tokenizer(texts))
    torch.testing.assert_close(theirs.encode_image(image, normalize=True), model.encode_image(image, normalize=True))
    torch.testing.assert_close(theirs.encode_text(text), model.encode_text(text))
    towers = json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]
    fresh = open_clip.CLIP(**towers)
    open_clip.load_checkpoint(fresh, str(tmp_path / "out" / "open_clip_model.safetensors"))
    torch.testing.assert_close(fresh.eval().encode_text(text), model.encode_text(text))


def test_several_branches_do_not_fit_open_clip(saved: Any, tmp_path: Path) -> None:
    _, folder = saved()
    with pytest.raises(ConfigError, match="3 branches, but open_clip's towers have one"):
        export(folder, tmp_path / "out", ["open_clip"])
    with pytest.raises(ConfigError, match="found form 'tensorrt', expected some of holism, open_clip, onnx"):
        export(folder, tmp_path / "out", ["tensorrt"])
    with pytest.raises(InputError, match="is not a model folder"):
        export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_forms_of_another_export_are_not_left_beside(saved: Any, tmp_path: Path) -> None:
    _, one = saved(branches=1, losses={"o2m": 1.0})
    one = one.parent.rename(tmp_path / "one") / "model"
    _, three = saved()
    for _ in range(2):  # the same again is no mistake
        export(one, tmp_path / "out", ["holism", "open_clip"])
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"holds open_clip_config\.json, open_clip_model\.safetensors of another"):
        export(three, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before


def test_what_an_export_did_not_write_is_left_alone(saved: Any, tmp_path: Path) -> None:
    _, folder = saved()
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    with pytest.raises(ConfigError, match=r"out/README\.md is there already and was not written by an export"):
        export(folder, out)
    assert [file.name for file in out.iterdir()] == ["README.md"]
    assert (out / "README.md").read_text() == "mine"
    (out / "README.md").unlink()
    export(folder, out)
    export(folder, out, facts=Facts({"run": "another card"}))  # its own files may change
    assert "another card" in (out / "README.md").read_text()
    (out / "README.md").write_text((out / "README.md").read_text() + "\nmy notes")
    with pytest.raises(ConfigError, match=r"or was changed since"):
        export(folder, out)


def test_no_file_tells_where_on_this_machine_things_lay(
    saved: Any, tmp_path: Path, tiny_architecture: dict[str, Any]
) -> None:
    (tmp_path / "weights").mkdir()
    torch.save(open_clip.CLIP(**tiny_architecture).state_dict(), tmp_path / "weights" / "start.pt")
    _, folder = saved(warm_start=str(tmp_path / "weights" / "start.pt"), branches=1, losses={"o2m": 1.0})
    export(folder, tmp_path / "out", ["holism", "open_clip"])
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name
    assert "| started from | start.pt |" in (tmp_path / "out" / "README.md").read_text()


def pictures_of_people(folder: Path) -> list[Path]:
    """As they come: lying on their side, transparent, with a palette, grey; each lopsided and of an odd size."""
    pixels = np.random.default_rng(0).integers(0, 255, (6, 9, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels, "RGBA").resize((45, 61), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.convert("RGB").save(folder / "turned.jpg", exif=exif, quality=95)
    picture.save(folder / "transparent.png")
    picture.save(folder / "transparent_and_turned.png", exif=exif)
    picture.convert("RGB").quantize(8).save(folder / "palette.png", transparency=2)
    picture.convert("L").save(folder / "grey.png")
    return sorted(folder.glob("*.*g"))


@pytest.mark.parametrize("form", ["holism", "open_clip", "onnx"])
def test_the_cards_code_sees_pictures_as_training_did(saved: Any, tmp_path: Path, form: str) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    model, folder = saved(branches=1, losses={"o2m": 1.0}, image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.3, 0.4))
    export(folder, tmp_path / "out", [form])
    code = "\n".join(re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL))
    assert code.count("photo.jpg") == 1
    theirs = image_transform_v2(PreprocessCfg(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)), is_train=False)
    (tmp_path / "pictures").mkdir()
    for file in pictures_of_people(tmp_path / "pictures"):
        found: dict[str, Any] = {}
        exec(code.replace("FOLDER", str(tmp_path / "out")).replace("photo.jpg", str(file)), found)
        seen, _ = pictures.decode(file.read_bytes())  # what training puts on its canvas
        with torch.inference_mode():
            expected = model.encode_image(theirs(seen)[None], normalize=True)
            text = model.encode_text(training.load(folder)[2](["a red kite"]), normalize=True)
        torch.testing.assert_close(torch.as_tensor(found["image"]), expected, rtol=1e-3, atol=2e-4, msg=file.name)
        torch.testing.assert_close(torch.as_tensor(found["text"]), text, rtol=1e-3, atol=2e-4)


def test_the_card_of_several_branches_reads_the_best_one_out(saved: Any, tmp_path: Path) -> None:
    model, folder = saved()
    export(folder, tmp_path / "out", ["holism"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"or all {len(model.slots)}" in card
    assert "| branches | 3, a second MLP layer each in the last block |" in card
    (tmp_path / "pictures").mkdir()
    file = pictures_of_people(tmp_path / "pictures")[0]
    found: dict[str, Any] = {}
    code = "\n".join(re.findall(r"```python\n(.*?)```", card, re.DOTALL))
    with torch.inference_mode():
        exec(code.replace("FOLDER", str(tmp_path / "out")).replace("photo.jpg", str(file)), found)
        _, preprocess, tokenizer = training.load(folder)
        text = model.encode_text(tokenizer(["a red kite"]), normalize=True)
        branch_HD = model.encode_branches(preprocess(Image.open(file))[None])[0]
    torch.testing.assert_close(found["score"], (branch_HD @ text.T).amax(dim=0)[None])
    torch.testing.assert_close(found["own"], branch_HD[:1] @ text.T)


def test_the_readmes_way_sees_pictures_as_training_did(saved: Any, tmp_path: Path) -> None:
    model, folder = saved(slots=["alt_text", "style"])
    readme = (Path(__file__).parents[2] / "README.md").read_text().split("## The trained model")[1]
    lines = [line.removeprefix("    ") for line in readme.splitlines() if line.startswith("    ")]
    code = "\n".join(lines).replace("demo/workspace/train/holism-.../model", str(folder))
    theirs = image_transform_v2(PreprocessCfg(size=32), is_train=False)
    (tmp_path / "pictures").mkdir()
    for file in pictures_of_people(tmp_path / "pictures"):
        found: dict[str, Any] = {}
        exec(code.replace("photo.jpg", str(file)), found)
        seen, _ = pictures.decode(file.read_bytes())
        torch.testing.assert_close(found["image"], model.encode_image(theirs(seen)[None]), msg=file.name)
        assert (found["branches"].shape, found["text"].shape) == ((1, 2, 24), (1, 24))
        torch.testing.assert_close(found["style"], found["branches"][:, 1] @ found["text"].T)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"branch_kind": "mlp"}, marks=pytest.mark.slow), {"branch_kind": "query"}]
)
def test_onnx_towers_give_the_models_outputs(
    saved: Any, tmp_path: Path, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, folder = saved(branch_blocks=2, projection="branch", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        export(folder, tmp_path / "out", ["onnx"])
    assert [record.getMessage() for record in caplog.records if record.name.startswith("onnxscript")] == []
    _, _, tokenizer = training.load(folder)
    run = {name: onnxruntime.InferenceSession(tmp_path / "out" / f"{name}.onnx") for name in ("image", "text")}
    for count in (1, 4, 9):
        image_BCSS = torch.randn(count, 3, 32, 32)
        served, branches = run["image"].run(None, {"image": image_BCSS.numpy()})
        assert abs(branches - model.encode_branches(image_BCSS).detach().numpy()).max() < 1e-4
        assert abs(served - model.encode_image(image_BCSS, normalize=True).detach().numpy()).max() < 1e-4
        text_TL = tokenizer(["a red kite", "two", "a very long text " * 20, "", "kites", "b", "c", "d", "e"][:count])
        (vector,) = run["text"].run(None, {"text": text_TL.numpy()})
        assert abs(vector - model.encode_text(text_TL, normalize=True).detach().numpy()).max() < 1e-4
    assert "served" in (tmp_path / "out" / "README.md").read_text()


def test_an_onnx_file_that_differs_is_not_written(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    _, folder = saved()
    monkeypatch.setattr(exporting, "TOLERANCE", 0.0)
    with pytest.raises(InputError, match=r"ONNX form of the image tower is .* off the model"):
        export(folder, tmp_path / "out", ["onnx"])
    assert not (tmp_path / "out").exists()


def test_what_no_onnx_file_can_hold_is_said(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = saved()
    monkeypatch.setattr(exporting, "MOST_BYTES", 2**20)
    with pytest.raises(ConfigError, match="an ONNX file holds at most 2 GiB"):
        export(folder, tmp_path / "out", ["onnx"])


def test_without_onnx_the_extra_is_named(saved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = saved()
    monkeypatch.setattr(exporting, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"needs the package onnx, .*\[onnx\]"):
        export(folder, tmp_path / "out", ["onnx"])
