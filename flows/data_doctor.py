"""`holism doctor data`: what the data of a run costs, and whether training waits for it."""

from __future__ import annotations

from flows.run import Session
from pipeline.errors import ConfigError, MissingInputError


def data_doctor(session: Session, run: str | None) -> str:
    """A report of one run of the configuration (its first by default), trained or not.

    Raises MissingInputError where there is nothing yet to train on, ConfigError where there is no such run.
    """
    resolution = session.resolve()["train"]
    if resolution.missing:
        first = resolution.missing[0]
        raise MissingInputError(
            f"doctor data measures what training reads, and there is no result of '{first}' yet; run it first: "
            f"{session.command(first)}"
        )
    config = session.config.train
    name = run or next(iter(config.runs))
    if name not in config.runs:
        raise ConfigError(f"--run: found {name!r}, but train.runs has {', '.join(config.runs)}")
    from training.threads import wait_without_spinning

    wait_without_spinning()  # as training does
    from training.data_doctor import diagnose
    from training.stage import data_of

    recipe = config.run(name)
    bundles, reader = data_of(recipe, resolution.inputs, session.workspace.folder("train"))
    return f"run {name}: " + diagnose(recipe, bundles, reader, config.launch.ranks).text()
