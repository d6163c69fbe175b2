"""`holism export`: a trained run in the forms others read, with where it comes from on its model card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.run import Session
from pipeline.errors import ConfigError, MissingInputError
from pipeline.storage import Location

if TYPE_CHECKING:
    from training.model_card import Facts

SOURCES = {"folder": "a folder", "webdataset": "WebDataset tars", "urls": "a list of URLs"}


def export(session: Session, run: str | None, folder: str, forms: Sequence[str], weights: str = "last") -> str:
    """Write one run of the train stage to `folder`, its last, best or averaged model; returns what to print.

    Raises MissingInputError where nothing is trained under this configuration, ConfigError where there is no such run,
    or no such model of it.
    """
    manifest = session.resolve()["train"].manifest
    if manifest is None:
        raise MissingInputError(
            f"export needs a trained model, and this configuration has none; run first: {session.command('train')}"
        )
    runs = manifest.detail["runs"]
    name = run or next(iter(runs))
    if name not in runs:
        raise ConfigError(f"--run: found {name!r}, but the trained runs are {', '.join(runs)}")
    from training.export import export as write

    if weights != "last" and weights not in runs[name]:
        raise ConfigError(
            f"--{weights}: no {weights} model of run {name} was kept; set train.{weights} before it is trained"
        )
    model = runs[name] if weights == "last" else runs[name][weights]
    files = write(Location.of(manifest.store) / model["folder"], folder, forms, _facts(session, name, weights))
    return f"{name}: {', '.join(files)} in {Location.of(folder)}"


def _facts(session: Session, name: str, weights: str) -> Facts:
    """What the stages' results know of a run: its data, who captioned it, and what it reaches."""
    from training.model_card import Facts

    manifests = {stage: resolution.manifest for stage, resolution in session.resolve().items()}
    ingest, caption, curate, train = (manifests[stage] for stage in ("ingest", "caption", "curate", "train"))
    assert ingest is not None  # nothing is trained without these
    assert caption is not None
    assert curate is not None
    assert train is not None
    assert session.config.ingest is not None
    cells = caption.detail["cells"].values()
    models = sorted({(_without_path(cell["model"]), cell["revision"]) for cell in cells})
    measured = manifests["evaluate"] if session.config.evaluate.weights == weights else None
    figures = measured.detail["headline"].get(name, {}) if measured else {}
    return Facts(
        data={
            "run": f"{name}, fingerprint {train.detail['runs'][name]['fingerprint']}",
            "images": f"{ingest.counts['images']:,}, from {SOURCES[session.config.ingest.source.kind]}",
            "captions": f"{curate.counts['kept']:,} kept of {curate.counts['captions']:,}; digest {curate.digest}",
            "captioned by": ", ".join(f"{model} (revision {revision})" for model, revision in models) or "nobody",
        },
        figures=figures,
    )


def _without_path(model: str) -> str:
    """A model's name, without the folder of this machine that it may lie in; hub ids stay whole."""
    return re.sub(r"^(\w+:)?[/~.].*/", r"\1", model)
