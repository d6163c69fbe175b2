"""`holism diversity`: one page on how different the captions of one or several workspaces are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from captioning.curate.config import CurateConfig
from captioning.curate.measures.config import EmbeddingConfig
from flows.run import Session
from pipeline.errors import MissingInputError
from pipeline.manifest import Manifest

SAMPLES = 6
NO_MODEL = "none"


def report(
    sessions: Sequence[Session], output: str | None, model: str | None = None, plots: str | None = None
) -> list[str]:
    """Write the page (into the first workspace if `output` is empty), and the plots as PNG if asked; names the files.

    `model` gives the sentence embeddings: None for that of the first configuration, `none` for no such figures. Raises
    `MissingInputError` if a workspace is not curated under its configuration.
    """
    from captioning.curate.diversity.collect import collect
    from captioning.curate.diversity.figures import Diversity
    from captioning.curate.diversity.plots import PLOTS, png
    from captioning.curate.diversity.report import render
    from captioning.curate.measures.embeddings import Embeddings, embedding_digest
    from captioning.curate.steps.curation import MEASURES
    from pipeline.storage import Location

    first: CurateConfig = sessions[0].config.curate
    wanted = EmbeddingConfig(model=model) if model else first.select.embedding
    digest = embedding_digest(wanted) if model != NO_MODEL else ""
    results = [_curated(session) for session in sessions]  # what is missing is said before any work
    sets = []
    for name, session, (inputs, curated) in zip(_names(sessions), sessions, results, strict=True):
        measures = session.workspace.folder("curate") / MEASURES
        statistic = Diversity(Embeddings(wanted, digest, measures), digest) if digest else Diversity()
        sets.append(collect(name, inputs, curated, statistic, ngram=first.ngram, examples=SAMPLES))
    page = Location.of(output) if output else sessions[0].workspace.folder("curate") / "diversity.html"
    page.write(render(sets, wanted.model if digest else None).encode())
    files = [page.uri]
    for plot, draw in PLOTS.items() if plots else ():
        picture = Location.of(str(plots)) / f"{plot}.png"
        picture.write(png(draw, {one.name: one.kept for one in sets}))
        files.append(picture.uri)
    return files


def _names(sessions: Sequence[Session]) -> list[str]:
    """The configurations' file names, numbered where two are the same."""
    stems = [Path(session.path).stem for session in sessions]
    return [stem if stems.count(stem) == 1 else f"{stem} {place + 1}" for place, stem in enumerate(stems)]


def _curated(session: Session) -> tuple[dict[str, Manifest], Manifest]:
    resolution = session.resolve()["curate"]
    if resolution.problem is not None:
        raise resolution.problem
    if resolution.manifest is None:
        raise MissingInputError(
            f"{session.path} has no curated captions under this configuration in {session.workspace.root}; run them "
            f"first: {session.command('run')} --stages ingest,caption,curate"
        )
    return dict(resolution.inputs), resolution.manifest
