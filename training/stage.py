"""Stage two: bundles in, trained models out, one commit per run.

A run's identity is its own recipe and the data it reads, so adding a run, or changing another, trains nothing anew.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.commits import CommitLog, Part
from pipeline.config import semantic
from pipeline.identity import digest
from pipeline.ingest import shard_uris
from pipeline.manifest import Manifest
from pipeline.messages import say
from pipeline.shard_cache import ShardCache
from pipeline.shards import ShardReader
from pipeline.stage import Outcome, Stage, StageRun
from pipeline.storage import Location
from training.config import RunConfig, TrainConfig
from training.describe import describe
from training.threads import wait_without_spinning
from training.weights import weights_digest

if TYPE_CHECKING:
    from training.bundles import Bundles
    from training.ranks import Ranks

VERSION = 4
EVALUATOR = "evaluator"
SERVICES = ("on_checkpoint", EVALUATOR)
BESIDE = ("best", "ema")  # folders of models that a run may have beside its last one


def run_fingerprint(config: RunConfig, inputs: Mapping[str, Manifest]) -> str:
    """Identity of one run's result: its recipe, its samples and what it starts from, wherever they lie."""
    data = {"curate": inputs["curate"].digest} | _weights_digests([config])
    return digest({"version": VERSION, "recipe": semantic(config), "inputs": data})


def _weights_digests(recipes: Sequence[RunConfig]) -> dict[str, str]:
    """Digests of the weights that recipes start from: the path alone does not tell what lies there."""
    paths = sorted({recipe.warm_start for recipe in recipes if recipe.warm_start})
    return {f"warm_start {path}": weights_digest(path) for path in paths}


def _external(config: TrainConfig) -> dict[str, str]:
    return _weights_digests([config.run(name) for name in config.runs])


def run_train(run: StageRun) -> Outcome:
    """Trains the runs that are not finished yet, here or on ranks that are started for it; the first one writes.

    Services: `on_checkpoint(run name, model, step)` is called after each checkpoint, where given; `evaluator`
    (`training.evaluations.Evaluator`) measures the model on the way. Ranks that are started here get them pickled.
    """
    wait_without_spinning()
    if "WORLD_SIZE" not in os.environ:  # else this is a rank already: of torchrun, or of Ray Train
        if run.config.launch.ray is not None:
            from training.on_ray import launched_on_ray

            return launched_on_ray(run_train, run, run.config.launch.ray, SERVICES)
        if run.config.launch.ranks > 1:
            from training.launch import launched

            return launched(run, run.config.launch.ranks, SERVICES)
    from training.ranks import joined

    config: TrainConfig = run.config
    store = run.workspace.folder("train")
    parts: list[Part] = []
    runs: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    warnings: list[str] = []
    with joined(config.device) as ranks:
        for name in config.runs:
            recipe = config.run(name)
            identity = run_fingerprint(recipe, run.inputs)
            folder = f"{name}-{identity[:12]}"
            finished = ranks.agree(_finished(store, folder) if ranks.is_first else [])
            finished = finished or _train_one(run, name, recipe, store, folder, ranks)
            parts += finished
            metrics = finished[-1].detail
            others = {kind: {"folder": f"{folder}/{kind}", **metrics[kind]} for kind in BESIDE if kind in metrics}
            counts[name] = metrics["summary"]
            warnings += metrics["warnings"]
            runs[name] = {
                "folder": f"{folder}/model",
                "fingerprint": identity,
                "slots": [slot.name for slot in recipe.slots],
                "branches": list(recipe.branch_names),
                **others,
            }
    detail = {"runs": runs, "captions": _captions(run.inputs)}
    return Outcome(str(store), parts, digest=_identity(runs, parts), counts=counts, detail=detail, warnings=warnings)


def _captions(inputs: Mapping[str, Manifest]) -> dict[str, float]:
    """How many captions the runs learnt from, and how much those of an image are alike: for the report."""
    counts = inputs["curate"].counts
    return {name: counts[name] for name in ("images", "captions", "kept", "mean_similarity") if name in counts}


def _identity(runs: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """What evaluation depends on: the models by content, and what they are called."""
    models: dict[str, Any] = {}
    for name, run in runs.items():
        models[name] = {"files": _files(parts, run), "slots": run["slots"], "branches": run["branches"]}
        models[name] |= {kind: _files(parts, run[kind]) for kind in BESIDE if kind in run}
    return digest(models)


def _files(parts: Sequence[Part], model: Mapping[str, Any]) -> list[str]:
    return sorted(part.digest for part in parts if part.name.startswith(f"{model['folder']}/"))


def _finished(store: Location, folder: str) -> list[Part]:
    """A finished run's parts, nothing if one is missing or damaged. The metrics are committed last."""
    from training.checkpoint import CONFIG_FILE, WEIGHTS_FILE
    from training.trainer import METRICS

    log = CommitLog(store)
    metrics = log.get(f"{folder}/{METRICS}")
    models = ["model", *(kind for kind in BESIDE if metrics and kind in metrics.detail)]
    names = [f"{folder}/{model}/{file}" for model in models for file in (CONFIG_FILE, WEIGHTS_FILE)]
    parts = [part for name in [*names, f"{folder}/{METRICS}"] if (part := log.get(name))]
    whole = len(parts) > len(names) and all(digest((store / part.name).read()) == part.digest for part in parts)
    return parts if whole else []


def _train_one(run: StageRun, name: str, recipe: RunConfig, store: Location, folder: str, ranks: Ranks) -> list[Part]:
    from training.trainer import train

    bundles, reader = data_of(recipe, run.inputs, store)
    watch = run.services.get("on_checkpoint")
    warnings = _warnings_of(bundles, recipe)
    for sentence in warnings if ranks.is_first else ():  # now, not after days
        say(f"train {name}: warning: {sentence}", warning=True)
    trained = train(
        name,
        recipe,
        bundles,
        reader,
        store / folder,
        ranks.on(recipe.device),
        on_checkpoint=(lambda model, step: watch(name, model, step)) if watch and ranks.is_first else None,
        data=run.inputs["curate"].digest,
        evaluator=run.services.get(EVALUATOR),
        cache=_folder_here(recipe.index, store, "index") / "embeddings",
    )
    parts = _commit(CommitLog(store), store, folder, recipe, trained, warnings) if ranks.is_first else []
    return list(ranks.agree(parts))


def data_of(recipe: RunConfig, inputs: Mapping[str, Manifest], store: Location) -> tuple[Bundles, ShardReader]:
    """The samples of a recipe and who reads their pictures; `store` is the stage's."""
    from training.bundles import read_bundles

    bundles = read_bundles(inputs["curate"], recipe.slots, _folder_here(recipe.index, store, "index"))
    cache = ShardCache(_folder_here(recipe.shard_cache, store, "shards").uri, int(recipe.shard_cache_gb * 1e9))
    return bundles, ShardReader(shard_uris(inputs["ingest"]), cache)


def _folder_here(wanted: str | None, store: Location, name: str) -> Location:
    """Where this machine has the training index, or parts of remote shards: in a file system of its own."""
    if wanted is not None:
        return Location.of(wanted)
    return store / name if store.is_local else Location.of(tempfile.gettempdir()) / f"holism-{name}-{os.getuid()}"


def _warnings_of(bundles: Any, recipe: RunConfig) -> list[str]:
    """What of the data will not be trained with, or of the recipe has no data."""
    warnings = []
    if bundles.dropped:
        warnings.append(f"{bundles.dropped} images have no caption for any slot and were left out")
    if empty := [slot.name for index, slot in enumerate(recipe.slots) if not bundles.captions[index]]:
        warnings.append(f"no image has a caption for train.slots {', '.join(empty)}; correct or leave out")
    return warnings


def _commit(
    log: CommitLog, store: Location, folder: str, recipe: RunConfig, trained: Any, of_data: Sequence[str]
) -> list[Part]:
    """Commits the models and the metrics, then removes the checkpoints: they are three times the model's size."""
    from training.checkpoint import model_files
    from training.saving import best_file
    from training.trainer import CHECKPOINTS, METRICS

    warnings = [f"{folder}: {sentence}" for sentence in of_data]
    if trained.unreadable:
        examples = "; ".join(trained.examples)
        warnings.append(f"{folder}: {trained.unreadable} times an image could not be decoded, for example {examples}")
    warnings += [f"{folder}: {sentence}" for sentence in trained.dead_branches]
    parts = [
        log.commit(f"{folder}/model/{name}", data, rows=1)
        for name, data in model_files(trained.model, recipe, trained.steps).items()
    ]
    summary = {"steps": trained.steps, "images seen": trained.steps * recipe.global_batch}
    summary |= {key: trained.last[key] for key in ("loss", "logit_scale", "branch_cosine")}
    summary["first_loss"] = json.loads(trained.metrics.split(b"\n", 1)[0])["loss"]
    summary["terms"] = {term: trained.last[f"loss/{term}"] for term in recipe.losses}
    detail = {"summary": summary, "warnings": warnings}
    if recipe.best:
        of_best, summary_of_best = _commit_best(log, store / folder, recipe)
        parts += of_best
        if summary_of_best:
            detail["best"] = summary["best"] = summary_of_best
        else:
            warnings.append(f"{folder}: there is no best model: none was measured, or its file is damaged")
    if trained.ema:
        files = model_files(trained.ema, recipe, trained.steps)
        parts += [log.commit(f"{folder}/ema/{name}", data, rows=1) for name, data in files.items()]
        detail["ema"] = {"decay": recipe.ema}
    parts.append(log.commit(f"{folder}/{METRICS}", trained.metrics, rows=trained.steps, detail=detail))
    (store / folder / CHECKPOINTS).remove(recursive=True)
    if recipe.best:
        best_file(store / folder).remove()
    return parts


def _commit_best(log: CommitLog, folder: Location, recipe: RunConfig) -> tuple[list[Part], dict[str, Any] | None]:
    """The model that was best at the figure that decides, and what it reached; nothing where its file is lost."""
    from training.checkpoint import load, model_files
    from training.evaluations import PREFIX
    from training.saving import best_checkpoint, best_file

    assert recipe.best is not None
    state = best_checkpoint(folder)
    value = state["figures"].get(f"{PREFIX}{recipe.best.figure}") if state else None
    if state is None or value is None:
        return [], None
    model, *_ = load(best_file(folder))
    files = model_files(model, recipe, state["step"])
    parts = [log.commit(f"{folder.name}/best/{name}", data, rows=1) for name, data in files.items()]
    return parts, {"step": state["step"], "figure": recipe.best.figure, "value": value}


STAGE = Stage(
    name="train",
    version=VERSION,
    upstream=("ingest", "curate"),
    config=TrainConfig,
    run=run_train,
    external=_external,
    located_by=("ingest",),
    describe=describe,
)
