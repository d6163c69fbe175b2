"""The evaluate stage: every trained run on every benchmark; a table of results and one report.

It reads the train manifest's runs and the benchmark folders, whose content enters the stage's identity. Light on
purpose: whether there is anything to do is decided without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evaluation import benchmarks, curves
from evaluation.config import EvaluateConfig
from evaluation.describe import describe
from pipeline import identity, schemas
from pipeline.commits import CommitLog
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest
from pipeline.stage import Outcome, Stage, StageRun
from pipeline.storage import Location

if TYPE_CHECKING:
    from evaluation.features import Encoder

VERSION = 4
RESULTS, REPORT = "results.parquet", "report.html"


def external(config: EvaluateConfig) -> dict[str, str]:
    """Digests of the benchmarks, by their place in the config; there has to be one.

    Their tables are read, so that what is wrong with them is said before there is anything to evaluate. One whose
    files are missing is left out as long as there are others, and measured when they have come.
    """
    if not config.benchmarks:
        raise ConfigError(
            "evaluate.benchmarks is empty: name a benchmark (docs/evaluation.md), or leave the stage out: "
            "--stages ingest,caption,curate,train"
        )
    return {f"benchmark {i}": digest for i, digest in enumerate(benchmarks.check_all(config.benchmarks)[0])}


def run(stage: StageRun) -> Outcome:
    """Measure all runs, write results.parquet and report.html."""
    from evaluation import report, table
    from evaluation.measure import evaluate

    config: EvaluateConfig = stage.config
    runs = stage.inputs["train"].detail["runs"]
    _check_branches(config, runs)
    found = benchmarks.read_all(config.benchmarks)
    cache = stage.workspace.folder("evaluate") / "features"
    evaluations = []
    for name, details in runs.items():
        encoder = load_encoder(stage.inputs["train"], name, details, config.weights)
        evaluations += [evaluate(encoder, benchmark, config, cache) for benchmark in found]

    rows = table.rows(evaluations, config)
    headline = table.headline(evaluations)
    store = stage.workspace.folder("evaluate") / stage.fingerprint[:12]
    log = CommitLog(store)
    data = schemas.encode(schemas.table(schemas.RESULTS, rows), schemas.RESULTS)
    results = log.commit(RESULTS, data, rows=len(rows))
    training = curves.charts(curves.read(stage.inputs["train"]))
    page = report.render(evaluations, config, stage.fingerprint, training).encode()
    return Outcome(
        store.uri,
        (results, log.commit(REPORT, page, rows=0)),
        counts={"runs": len(runs), "benchmarks": len(found), "results": len(rows)},
        detail={"report": REPORT, "headline": headline},
        warnings=benchmarks.check_all(config.benchmarks)[1],
    )


def _check_branches(config: EvaluateConfig, runs: Mapping[str, Any]) -> None:
    known = {name for details in runs.values() for name in details["branches"]}
    for readout in config.readouts:
        if readout.startswith("branch:") and readout.removeprefix("branch:") not in known:
            raise ConfigError(
                f"evaluate.readouts names {readout!r}, but the runs' branches are {', '.join(sorted(known))}"
            )


def load_encoder(train: Manifest, name: str, details: Mapping[str, Any], weights: str = "last") -> Encoder:
    """A run of the train stage as an encoder. Raises ConfigError where its best model is wanted and was not kept."""
    import training
    from evaluation.features import Encoder

    if weights == "best" and "best" not in details:
        folder = (Location.of(train.store) / details["folder"]).parent
        raise ConfigError(
            f"evaluate.weights is best, but no best model of run {name} was kept; set train.best, delete {folder} and "
            "train again, or measure the last one"
        )
    folder = details["best"]["folder"] if weights == "best" else details["folder"]
    files = train.select(f"{folder}/")
    model, preprocess, tokenizer = training.load(Location.of(train.store) / folder)
    content = identity.digest([[part.name.removeprefix(folder), part.digest] for part in files])
    return Encoder(name, details["fingerprint"], content, model, preprocess, tokenizer, tuple(details["branches"]))


STAGE = Stage("evaluate", VERSION, ("train",), EvaluateConfig, run, external, describe=describe)
