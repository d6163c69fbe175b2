"""`holism export`: a trained run in the forms others read, with where it comes from on its model card."""

from __future__ import annotations

from collections.abc import Sequence

from flows.run import Session
from pipeline.errors import ConfigError, MissingInputError
from pipeline.storage import Location


def export(session: Session, run: str | None, folder: str, forms: Sequence[str]) -> str:
    """Write one run of the train stage to `folder`; returns what to print.

    Raises MissingInputError where nothing is trained under this configuration, ConfigError where there is no such run.
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

    facts = {
        "run": f"{name}, fingerprint {runs[name]['fingerprint']}",
        "images": f"ingest, digest {manifest.inputs['ingest']}",
        "captions": f"curate, digest {manifest.inputs['curate']}",
    }
    files = write(Location.of(manifest.store) / runs[name]["folder"], folder, forms, facts)
    return f"{name}: {', '.join(files)} in {Location.of(folder)}"
