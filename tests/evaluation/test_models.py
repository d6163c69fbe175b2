"""Models of others: features are what the library that they come from gives, whatever form they lie in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import training
from evaluation import benchmarks, models
from evaluation.config import EvaluateConfig
from evaluation.features import features
from evaluation.measure import needs_of
from evaluation.models.source import Source
from pipeline.errors import HolismError
from pipeline.storage import Location
from tests.evaluation.conftest import TINY
from training.checkpoint import model_files, new_model
from training.config import RunConfig
from training.export import export

Found = tuple[list[Image.Image], list[str]]
SLOTS = ("colour", "detail")


def tiny_holism(folder: Path, slots: tuple[str, ...] = SLOTS) -> Path:
    torch.manual_seed(0)
    recipe = RunConfig.model_validate({"model": TINY, "slots": slots, "losses": {"served": 1.0}})
    folder.mkdir(parents=True)
    for name, data in model_files(new_model(recipe), recipe, 1).items():
        (folder / name).write_bytes(data)
    return folder


def clip_tokenizer() -> object:
    """A byte-pair vocabulary of single letters, as CLIP's is written."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={name: index for index, name in enumerate(names)}, merges=[])
    tokenizer.model_max_length = 24
    return tokenizer


def save_transformers(folder: Path, kind: str) -> Path:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = clip_tokenizer()
    end = tokenizer.eos_token_id
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": len(tokenizer), "max_position_embeddings": 24, "bos_token_id": end - 1, "eos_token_id": end,
            "pad_token_id": end}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    torch.manual_seed(0)
    size = {"height": 16, "width": 16}
    if kind == "clip":
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size).save_pretrained(folder)
    else:
        SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
        SiglipImageProcessor(size=size).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def of_transformers(folder: Path) -> Callable[[Found], tuple[Tensor, Tensor]]:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    def call(asked: Found) -> tuple[Tensor, Tensor]:
        images, texts = asked
        model = AutoModel.from_pretrained(folder).eval()
        pixels = AutoImageProcessor.from_pretrained(folder)(images=images, return_tensors="pt")
        inputs = AutoTokenizer.from_pretrained(folder)(
            texts, padding="max_length", max_length=24, truncation=True, return_tensors="pt"
        )
        if model.config.model_type == "siglip":  # which is asked without a mask
            inputs.pop("attention_mask", None)
        outputs = model(**pixels, **inputs)
        return outputs.image_embeds[:, None], outputs.text_embeds

    return call


def of_open_clip(name: str, weights: str | None = None) -> Callable[[Found], tuple[Tensor, Tensor]]:
    def call(asked: Found) -> tuple[Tensor, Tensor]:
        images, texts = asked
        model, _, preprocess = open_clip.create_model_and_transforms(name, weights)
        model.eval()
        stacked = torch.stack([preprocess(image) for image in images])
        tokens = open_clip.get_tokenizer(name)(texts)
        return model.encode_image(stacked, normalize=True)[:, None], model.encode_text(tokens, normalize=True)

    return call


def of_ours(folder: Path) -> Callable[[Found], tuple[Tensor, Tensor]]:
    def call(asked: Found) -> tuple[Tensor, Tensor]:
        images, texts = asked
        model, preprocess, tokenizer = training.load(folder)
        stacked = torch.stack([preprocess(image) for image in images])
        return model.encode_branches(stacked), model.encode_text(tokenizer(texts), normalize=True)

    return call


def named_open_clip(tmp_path: Path) -> tuple[str, Callable[[Found], tuple[Tensor, Tensor]]]:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny-of-tests.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "configs")
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-of-tests").state_dict(), tmp_path / "weights.pt")
    return f"open_clip:tiny-of-tests:{tmp_path}/weights.pt", of_open_clip(
        "tiny-of-tests", str(tmp_path / "weights.pt")
    )


def form(kind: str, tmp_path: Path) -> tuple[str, Callable[[Found], tuple[Tensor, Tensor]]]:
    """A tiny model in this form: what a user writes, and how its own library encodes."""
    if kind == "open_clip by name":
        return named_open_clip(tmp_path)
    if kind.startswith("transformers"):
        folder = save_transformers(tmp_path / "theirs", kind.split()[-1])
        return str(folder), of_transformers(folder)
    ours = tiny_holism(tmp_path / "model", ("colour",) if kind == "open_clip export" else SLOTS)
    if kind == "holism":
        return str(ours), of_ours(ours)
    if kind == "onnx export":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        export(ours, tmp_path / "out", ["onnx"])
        return str(tmp_path / "out"), of_ours(ours)
    export(ours, tmp_path / "out", ["open_clip"])
    return str(tmp_path / "out"), of_open_clip(f"local-dir:{tmp_path / 'out'}")


@torch.inference_mode()
@pytest.mark.parametrize(
    "kind",
    ["open_clip by name", "open_clip export", "transformers clip", "transformers siglip", "holism", "onnx export"],
)
def test_features_are_those_of_the_models_own_library(squares: Path, tmp_path: Path, kind: str) -> None:
    text, library = form(kind, tmp_path)
    encoder = models.load("theirs", text)
    benchmark = benchmarks.read(squares)
    config = EvaluateConfig(device="cpu", image_batch=5, text_batch=3)
    found = features(encoder, benchmark, config, Location.of(tmp_path / "cache"), needs_of(benchmark, config))
    texts = list(needs_of(benchmark, config).texts)
    images = [Image.open(benchmark.image(index).uri).convert("RGB") for index in range(len(benchmark.files))]
    branch_NHD, text_TD = library((images, texts))
    torch.testing.assert_close(found.branch_NHD, F.normalize(branch_NHD, dim=-1), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found.texts(texts), F.normalize(text_TD, dim=-1), rtol=1e-4, atol=2e-5)
    assert not torch.allclose(found.branch_NHD[0], found.branch_NHD[4], atol=1e-4), "pictures are told apart"
    assert len(encoder.branches) == found.branch_NHD.shape[1]
    assert encoder.cuts_texts == (not kind.startswith("transformers"))


def test_the_forms_of_one_export_are_told_apart(tmp_path: Path) -> None:
    ours = tiny_holism(tmp_path / "model", ("colour",))
    export(ours, tmp_path / "out", ["holism", "open_clip"])
    assert Source.of(str(tmp_path / "out")).kind == "holism_model"
    theirs = Source.of(str(tmp_path / "out" / "open_clip_config.json"))
    assert (theirs.kind, theirs.place) == ("open_clip_model", f"local-dir:{tmp_path / 'out'}")


def test_identity_is_content_and_not_place(tmp_path: Path) -> None:
    first, second = tiny_holism(tmp_path / "a"), tiny_holism(tmp_path / "b")
    assert Source.of(str(first)).digest == Source.of(str(second)).digest
    (second / "model.safetensors").write_bytes((second / "model.safetensors").read_bytes()[:-4] + b"\1\2\3\4")
    assert Source.of(str(first)).digest != Source.of(str(second)).digest
    assert Source.of("open_clip:ViT-B-32:openai").digest != Source.of("open_clip:ViT-B-16:openai").digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("open_clip:ViT-B-32", "says no weights"),
        ("open_clip:ViT-B-32:/nowhere/weights.pt", "there is no /nowhere/weights.pt"),
        ("/nowhere/at/all", "nothing is there"),
        ("open_clip:ViT-B-32:openai", "another GELU .* open_clip:ViT-B-32-quickgelu:openai"),
        ("open_clip:ViT-B-32:laion2b_e17", "no weights 'laion2b_e17' for ViT-B-32, .*did you mean 'laion2b_e16'"),
        ("open_clip:no-such-model:openai", "open_clip cannot load 'no-such-model'"),
    ],
)
def test_what_is_no_model_is_said_in_one_sentence(text: str, expected: str) -> None:
    with pytest.raises(HolismError, match=expected):
        models.load("theirs", text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"readme.txt": ""}, "a folder that holds none"),
        ({"config.json": '{"model_type": "llava"}'}, "a transformers model of type 'llava'; expected clip or siglip"),
        ({"config.json": "{"}, "no JSON"),
        ({"config.json": '{"model_type": "clip"}'}, "transformers cannot load"),
        ({"image.onnx": "x"}, "there is no .*text.onnx"),
    ],
)
def test_what_a_folder_lacks_is_said(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(HolismError, match=expected):
        models.load("theirs", str(tmp_path))
