"""The evaluate stage: every trained run, and models of others, on every benchmark; a table of results and one report.

It reads the train manifest's runs, the models that the configuration names and the benchmark folders; the content of
all of them enters the stage's identity. Light on purpose: whether there is anything to do is decided without torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from evaluation import benchmarks, curves
from evaluation.config import EvaluateConfig
from evaluation.describe import describe
from evaluation.models.source import Source
from pipeline import identity, schemas
from pipeline.commits import CommitLog
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest
from pipeline.stage import Outcome, Stage, StageRun
from pipeline.storage import Location

if TYPE_CHECKING:
    from evaluation.encoder import Encoder

VERSION = 5
RESULTS, DIFFERENCES, REPORT, MARKDOWN = "results.parquet", "differences.parquet", "report.html", "report.md"


def external(config: EvaluateConfig) -> dict[str, str]:
    """Digests of the benchmarks, by their place in the config, and of models by name; there has to be a benchmark.

    Their tables are read, so that what is wrong with them is said before there is anything to evaluate. One whose
    files are missing is left out as long as there are others, and measured when they have come.
    """
    if not config.benchmarks:
        raise ConfigError(
            "evaluate.benchmarks is empty: name a benchmark (docs/evaluation.md), or leave the stage out: "
            "--stages ingest,caption,curate,train"
        )
    read = {f"benchmark {i}": digest for i, digest in enumerate(benchmarks.check_all(config.benchmarks)[0])}
    return read | {f"model {name}": Source.of(text).digest for name, text in config.models.items()}


def does_without(config: EvaluateConfig) -> tuple[str, ...]:
    """Models of others need nothing trained here."""
    return () if config.runs else ("train",)


def run(stage: StageRun) -> Outcome:
    """Measure all runs, write tables and the report."""
    from evaluation import markdown, report, table
    from evaluation.measure import evaluate

    config: EvaluateConfig = stage.config
    train = stage.inputs.get("train")
    runs: Mapping[str, Any] = train.detail["runs"] if train else {}
    _check_names(config, runs)
    trained = {name for details in runs.values() for name in details["branches"]}
    if not config.models:  # whose branches are known once they are loaded
        _check_branches(config, trained)
    found = benchmarks.read_all(config.benchmarks)
    cache = stage.workspace.folder("evaluate") / "features"
    evaluations = [
        evaluate(encoder, benchmark, config, cache) for encoder in encoders(train, runs, config) for benchmark in found
    ]

    _check_branches(config, {name for evaluation in evaluations for name in evaluation.encoder.branches})

    tables = table.tables(evaluations, config)
    rows = tables.figures
    store = stage.workspace.folder("evaluate") / stage.fingerprint[:12]
    log = CommitLog(store)
    data = schemas.encode(schemas.table(schemas.RESULTS, rows), schemas.RESULTS)
    parts = [log.commit(RESULTS, data, rows=len(rows))]
    if apart := tables.differences:
        data = schemas.encode(schemas.table(schemas.DIFFERENCES, apart), schemas.DIFFERENCES)
        parts.append(log.commit(DIFFERENCES, data, rows=len(apart)))
    training = curves.charts(curves.read(train)) if train else []
    captions = train.detail.get("captions") if train else None
    page = report.render(evaluations, config, stage.fingerprint, training, tables, captions).encode()
    parts.append(log.commit(REPORT, page, rows=0))
    parts.append(log.commit(MARKDOWN, markdown.render(tables, config, stage.fingerprint).encode(), rows=0))
    return Outcome(
        store.uri,
        parts,
        counts={"runs": len(runs), "models": len(config.models), "benchmarks": len(found), "results": len(rows)},
        detail={"report": REPORT, "headline": tables.headline},
        warnings=benchmarks.check_all(config.benchmarks)[1],
    )


def encoders(train: Manifest | None, runs: Mapping[str, Any], config: EvaluateConfig) -> Iterator[Encoder]:
    """Our runs, then the models of others, each loaded when its turn comes."""
    from evaluation import models

    if train is not None:
        for name, details in runs.items():
            again = partial(load_encoder, train, name, details, config.weights)
            yield replace(again(), again=again)
    for name, text in config.models.items():
        again = partial(models.load, name, text)
        yield replace(again(), again=again)


def _check_names(config: EvaluateConfig, runs: Mapping[str, Any]) -> None:
    if taken := sorted(set(config.models) & set(runs)):
        raise ConfigError(f"evaluate.models: a run of train is called {taken[0]!r}; give the model another name")


def _check_branches(config: EvaluateConfig, known: Collection[str]) -> None:
    for readout in config.readouts:
        if readout.startswith("branch:") and readout.removeprefix("branch:") not in known:
            raise ConfigError(
                f"evaluate.readouts names {readout!r}, but the runs' branches are {', '.join(sorted(known))}"
            )


def load_encoder(train: Manifest, name: str, details: Mapping[str, Any], weights: str = "last") -> Encoder:
    """A run of the train stage as an encoder. Raises ConfigError where a model is wanted that was not kept."""
    import training
    from evaluation.encoder import Encoder

    if weights != "last" and weights not in details:
        folder = (Location.of(train.store) / details["folder"]).parent
        raise ConfigError(
            f"evaluate.weights is {weights}, but no {weights} model of run {name} was kept; set train.{weights}, "
            f"delete {folder} and train again, or measure the last one"
        )
    folder = (details if weights == "last" else details[weights])["folder"]
    files = train.select(f"{folder}/")
    model, preprocess, tokenizer = training.load(Location.of(train.store) / folder)
    content = identity.digest([[part.name.removeprefix(folder), part.digest] for part in files])
    return Encoder(name, details["fingerprint"], content, model, preprocess, tokenizer, tuple(details["branches"]))


STAGE = Stage(
    "evaluate", VERSION, ("train",), EvaluateConfig, run, external, describe=describe, does_without=does_without
)
