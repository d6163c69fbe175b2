"""`holism compare`: models of several configurations and workspaces on one page, with paired differences.

Each was evaluated where it belongs, and its features are read from there: nothing is trained, and nothing is encoded
that was encoded already. What is measured (readouts, cut-offs, resamples) is as the first configuration says, on the
benchmarks that all of them have: the same by content, wherever they lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.run import Session
from pipeline.errors import InputError, MissingInputError
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.storage import Location

if TYPE_CHECKING:
    from evaluation.benchmarks import Benchmark
    from evaluation.task import Evaluation

PAGE = "comparison.html"
KEPT_AS = ("feature_precision",)  # settings by which a workspace's features are found


def compare(sessions: Sequence[Session], output: str | None) -> str:
    """Write the page (into the first workspace if `output` is empty), and its tables as Markdown beside it.

    Returns where it lies. Raises `MissingInputError` where a configuration has no result, `InputError` where they
    share no benchmark.
    """
    results = [_evaluated(session) for session in sessions]  # what is missing is said before any work
    shared = _shared(sessions)
    from evaluation import markdown, report, table

    config = sessions[0].config.evaluate
    evaluations = [found for place in range(len(sessions)) for found in _of(place, sessions, shared)]
    made_of = digest([manifest.fingerprint for manifest in results])
    page = Location.of(output) if output else sessions[0].workspace.folder("evaluate") / PAGE
    tables = table.tables(evaluations, config)
    page.write(report.render(evaluations, config, made_of, tables=tables, has_parquet=False).encode())
    Location.of(f"{page.uri.removesuffix('.html')}.md").write(markdown.render(tables, config, made_of).encode())
    return page.uri


def _evaluated(session: Session) -> Manifest:
    resolution = session.resolve()["evaluate"]
    if resolution.problem is not None:
        raise resolution.problem
    if resolution.manifest is None:
        raise MissingInputError(
            f"{session.path} has no evaluation under this configuration in {session.workspace.root}; run it first: "
            f"{session.command('evaluate')}"
        )
    return resolution.manifest


def _shared(sessions: Sequence[Session]) -> list[Benchmark]:
    """The benchmarks of the first configuration that the others have as well."""
    from evaluation import benchmarks

    first, *others = [benchmarks.read_all(session.config.evaluate.benchmarks) for session in sessions]
    known = [{benchmark.digest for benchmark in found} for found in others]
    if shared := [benchmark for benchmark in first if all(benchmark.digest in digests for digests in known)]:
        return shared
    raise InputError(
        f"{' and '.join(session.path for session in sessions)} have no benchmark in common; name one with the same "
        "content in evaluate.benchmarks of each"
    )


def _of(place: int, sessions: Sequence[Session], shared: Sequence[Benchmark]) -> Iterator[Evaluation]:
    """What one configuration's models reach."""
    from evaluation.measure import evaluate
    from evaluation.stage import encoders

    session, first = sessions[place], sessions[0].config.evaluate
    own = session.config.evaluate
    config = first.model_copy(update={name: getattr(own, name) for name in KEPT_AS})
    train = session.resolve()["evaluate"].inputs.get("train")
    cache = session.workspace.folder("evaluate") / "features"
    names = _names(sessions)
    for encoder in encoders(train, train.detail["runs"] if train else {}, own):
        name = names[place, encoder.run]
        for benchmark in shared:
            yield evaluate(replace(encoder, run=name), benchmark, config, cache)


def _names(sessions: Sequence[Session]) -> Mapping[tuple[int, str], str]:
    """Each model's own name, after its configuration's where two are called the same."""
    named = [
        (place, run)
        for place, session in enumerate(sessions)
        for run in (
            *(session.config.train.runs if session.config.evaluate.runs else ()),
            *session.config.evaluate.models,
        )
    ]
    runs, stems = [run for _, run in named], [Path(session.path).stem for session in sessions]
    label = [stem if stems.count(stem) == 1 else f"{stem} {place + 1}" for place, stem in enumerate(stems)]
    return {(place, run): run if runs.count(run) == 1 else f"{label[place]}: {run}" for place, run in named}
