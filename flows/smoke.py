"""`holism run CONFIG --smoke`: a configuration's own choices at toy size, from images to report, in seconds.

Kept is what a recipe decides: prompts, sampling and gadgets, slots, branches and their isolation, losses, warm start
and frozen towers, all runs. Smaller are images, towers, batches and steps; answers are the fake engine's, weights to
start from are made up. What a recipe asks for and a toy cannot have is said. Nothing of the recipe's own workspace,
images, benchmarks or cluster is touched: all lies in a temporary folder, which is removed in the end.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flows import checks
from flows.config import HolismConfig, load_config
from flows.run import Session
from pipeline.config import build
from pipeline.demo_world.write import write_world
from pipeline.errors import ConfigError
from pipeline.ingest.config import IngestConfig
from pipeline.messages import say
from pipeline.workspace import Workspace
from training.config import RunConfig
from training.towers import can_be_looked_up, resolve_architecture

RAY_ADDRESS = "RAY_ADDRESS"
IMAGES, HELD_OUT, BATCH, SHARD = 24, 12, 8, 12
LAYERS, WIDTH, HEADS, PATCH, SIDE = 3, 32, 2, 16, 32
CONTEXT = 77  # of the weights that stand for a warm start's
ADDRESSES = ("path", "captions", "file_column", "caption_column", "header", "text")  # what a source says of its files
# Of a recipe, what a toy has its own of. A frozen choice, such as a loss, is in none of these lists.
SIZES = ("epochs", "global_batch", "warmup_steps", "canvas", "checkpoint_every", "checkpoint_minutes", "index")
TOY = {"epochs": 1, "global_batch": BATCH, "warmup_steps": 1}


@contextmanager
def smoke(path: str, overrides: Sequence[str] = ()) -> Iterator[Session]:
    """The configuration at toy size, ready to run; its folder goes when this ends.

    Raises ConfigError for what is wrong with the configuration itself, whatever the size.
    """
    config = load_config(path, overrides)
    for stage in ("curate", "train"):  # what these find holds for the recipe, and might not for the toy
        checks.check(stage, config)
    with TemporaryDirectory(prefix="holism-smoke-") as name:
        folder = Path(name)
        small, changed = smaller(config, folder)
        say(f"smoke: {IMAGES} images, towers of width {WIDTH}, the fake engine, a temporary workspace")
        for sentence in changed:
            say(f"smoke: {sentence}")
        _write_inputs(config, folder)
        with _no_cluster():
            yield Session(path, tuple(overrides), small, Workspace(small.workspace))


@contextmanager
def _no_cluster() -> Iterator[None]:
    """Nodes of a cluster do not see the temporary folder."""
    address = os.environ.pop(RAY_ADDRESS, None)
    try:
        yield
    finally:
        if address is not None:
            os.environ[RAY_ADDRESS] = address


def smaller(config: HolismConfig, folder: Path) -> tuple[HolismConfig, list[str]]:
    """The same at toy size, with all places below `folder`; and what of it could not be kept, a sentence each."""
    if config.ingest is None:
        raise ConfigError("--smoke needs the section ingest; a configuration of models alone is measured as it is")
    if config.caption.tables:
        raise ConfigError(
            f"--smoke has nothing to put in the place of caption.tables ({config.caption.tables[0].name}); it is for "
            "recipes whose captions come from models: --set caption.tables=[]"
        )
    data, said = config.model_dump(mode="json", exclude_unset=True), list[str]()
    on_ray = config.ray.address is not None or "ray" in data
    small = {
        **data,
        "workspace": str(folder / "workspace"),
        "ingest": _ingest(config.ingest, data["ingest"], folder, said),
        "caption": _caption(data.get("caption", {}), on_ray, said),
        "curate": _curate(config, data.get("curate", {}), said),
        "train": _train(config, data.get("train", {}), folder, said),
        "evaluate": {**data.get("evaluate", {}), "benchmarks": [_benchmark(folder)], "bootstrap_samples": 100},
        "ray": {"num_cpus": 2},
    }
    if on_ray and (config.ray.address or os.environ.get(RAY_ADDRESS)):
        said.append("ray.address: a Ray of this machine")
    return build(HolismConfig, small, source="the configuration at toy size"), said


def _ingest(ingest: IngestConfig, section: Mapping[str, Any], folder: Path, said: list[str]) -> dict[str, Any]:
    source = {key: value for key, value in section["source"].items() if key not in ADDRESSES}
    if ingest.source.kind == "urls":
        said.append("ingest.source: nothing is downloaded, the images lie in a folder")
        source = {"kind": "folder"}
    source["path"] = str(_tars(folder) if ingest.source.kind == "webdataset" else _scenes(folder))
    return {**section, "source": source, "shard_images": SHARD, "workers": 1}


def _caption(section: Mapping[str, Any], on_ray: bool, said: list[str]) -> dict[str, Any]:
    ray = {"enabled": True, "actors": {"max": 1}} if on_ray else {"enabled": False}
    if "ray" in section:
        said.append("caption.ray: one actor" if on_ray else "caption.ray: in this process")
    return {**section, "engine": {"kind": "fake"}, "chunk_images": BATCH, "ray": ray}


def _curate(config: HolismConfig, section: Mapping[str, Any], said: list[str]) -> dict[str, Any]:
    """Without the models that measure captions, which would have to be fetched."""
    small = {key: value for key, value in section.items() if key != "ray"}
    if config.curate.ground.scorer is not None:
        said.append("curate.ground: no model, so no scores")
        del small["ground"]
    select = dict(small.get("select", {}))
    if config.curate.select.similarity == "semantic":
        said.append("curate.select.similarity: lexical, in place of semantic")
        select["similarity"] = "lexical"
    if config.curate.select.quality == "ground":
        select["quality"] = "length"
    return {**small, "select": select}


def _train(config: HolismConfig, section: Mapping[str, Any], folder: Path, said: list[str]) -> dict[str, Any]:
    train = config.train
    if train.launch.model_fields_set:
        said.append("train.launch: this process")
    recipes = [train, *map(train.run, train.runs)]
    if any(recipe.compile for recipe in recipes):
        said.append("train.compile: off")
    starts = dict.fromkeys(recipe.warm_start for recipe in recipes if recipe.warm_start)
    said += [f"train.warm_start: made-up weights in place of {start}" for start in starts]
    base = {key: value for key, value in section.items() if key not in ("runs", "launch")}
    runs = {name: _recipe(run, train.run(name), folder, said) for name, run in train.runs.items()}
    small = {**_recipe(base, train, folder, said), "model": _towers(train), **TOY}
    return {**small, "workers": min(train.workers, 1), "runs": runs}


def _recipe(written: Mapping[str, Any], recipe: RunConfig, folder: Path, said: list[str]) -> dict[str, Any]:
    """What a recipe, or a run that varies it, says beside sizes, with small towers where it names some."""
    small = {key: value for key, value in written.items() if key not in (*SIZES, "compile", "workers")}
    if "model" in small:
        small["model"] = _towers(recipe)
    if small.get("warm_start"):
        small["warm_start"] = str(_weights(folder))
    if small.get("micro_batch"):
        small["micro_batch"] = min(small["micro_batch"], BATCH // 2)
    if small.get("branch_blocks", 0) > LAYERS:
        said.append(f"train.branch_blocks: {LAYERS}, as many blocks as there are")
        small["branch_blocks"] = LAYERS
    return small


def _towers(recipe: RunConfig) -> dict[str, Any]:
    """A recipe's towers at toy size: their GELU and their length of texts are kept."""
    known = resolve_architecture(recipe.model) if can_be_looked_up(recipe.model) else {"text_cfg": {}}
    context = known["text_cfg"].get("context_length", CONTEXT)
    return towers(context) | {"quick_gelu": known.get("quick_gelu", False)}


def towers(context: int) -> dict[str, Any]:
    """open_clip's own towers with some thousand weights, beside the embedding of tokens."""
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {
            "image_size": SIDE,
            "layers": LAYERS,
            "width": WIDTH,
            "head_width": WIDTH // HEADS,
            "patch_size": PATCH,
        },
        "text_cfg": {"context_length": context, "width": WIDTH, "heads": HEADS, "layers": LAYERS},
    }


def _scenes(folder: Path) -> Path:
    return folder / "scenes" / "train"


def _tars(folder: Path) -> Path:
    return folder / "tars"


def _benchmark(folder: Path) -> str:
    return str(folder / "scenes" / "heldout")


def _weights(folder: Path) -> Path:
    return folder / "weights.pt"


def _write_inputs(config: HolismConfig, folder: Path) -> None:
    """What the toy reads: scenes of the demo world, in tars where the recipe has tars, and weights to start from."""
    write_world(folder / "scenes", IMAGES, HELD_OUT, seed=0)
    if config.ingest is not None and config.ingest.source.kind == "webdataset":
        _tars(folder).mkdir()
        files = sorted(_scenes(folder).iterdir())
        for number in range(2):
            with tarfile.open(_tars(folder) / f"{number:05d}.tar", "w") as tar:
                for file in files[number * len(files) // 2 : (number + 1) * len(files) // 2]:
                    tar.add(file, arcname=file.name)
    if any(config.train.run(name).warm_start for name in config.train.runs):
        import open_clip
        import torch

        torch.save(open_clip.CLIP(**towers(CONTEXT)).state_dict(), _weights(folder))
