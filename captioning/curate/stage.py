"""Stage `curate`: a verdict for every caption and a bundle for every image.

The steps are in `curation.py`. With `regenerate`, images with too little diversity are captioned again, and the steps
go over what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from captioning.curate import counts, regenerate
from captioning.curate.config import VERSION, CurateConfig, unknown_perspectives
from captioning.curate.describe import describe
from captioning.curate.text_rules.phrases import load_phrases, phrases_digest
from captioning.curate.text_rules.unsafe_list import list_digest, load_list
from captioning.rounds import ROUND
from pipeline.errors import ConfigError
from pipeline.manifest import Manifest
from pipeline.stage import Outcome, Stage, StageRun, what_is_gone
from pipeline.storage import Location
from pipeline.workspace import Workspace


def run(stage_run: StageRun) -> Outcome:
    """Curate what is not curated yet, and sum up all of it.

    Raises `InputError` if there is no caption, or if no caption of any image is kept.
    """
    from captioning.curate.bundles.tokens import TOKENIZER
    from captioning.curate.steps.curation import Curation
    from captioning.curate.steps.inputs import CurationInput
    from captioning.curate.steps.spread import Spread

    config, workspace = stage_run.config, stage_run.workspace
    _refuse_own_checkpoint(stage_run)
    if config.regenerate.rounds:
        regenerate.service(stage_run.services)  # rather missed now than after hours of curation
    source = CurationInput(stage_run.inputs["ingest"], (stage_run.inputs["caption"],))
    curation = Curation(
        config,
        workspace.folder("curate"),
        source,
        external(config),
        stage_run.services,
        Spread(config.ray, stage_run.cluster),
        stage_run.retry_failed,
    )
    curated, rounds, said = curation.run(), list[dict[str, Any]](), list[str]()
    for number in range(1, config.regenerate.rounds + 1):
        asked, before = regenerate.request(config.regenerate, number, curated, workspace.folder("caption"))
        if asked is None:
            break
        more = regenerate.service(stage_run.services)(asked, stage_run.retry_failed)
        curation = replace(curation, source=curation.source.with_round(more), verify=False)
        curated = curation.run()
        rounds.append(regenerate.gained(asked, before, curated))
        said += regenerate.new_warnings(asked, more, stage_run.inputs["caption"].warnings)
    figures = curated.total() | ({"rounds": rounds} if rounds else {})
    figures["distinct_images"] = stage_run.inputs["ingest"].counts.get("distinct_images", figures["images"])
    counts.check_not_empty(figures)
    warnings = said + counts.find_warnings(figures, curated.silent(), len(curated.verdicts))
    warnings += unknown_perspectives(config, {*figures["kept_by_perspective"], *figures["dropped_by_perspective"]})
    further = [manifest.fingerprint for manifest in curation.source.captions[1:]]
    detail = {"tokenizer": TOKENIZER, "rounds": further}
    return Outcome(curated.store, curated.selected(), figures, detail, warnings, digest=curated.samples(TOKENIZER))


def external(config: CurateConfig) -> dict[str, str]:
    """Digests of the lists and models that the configuration only names; mistakes in lists are refused here."""
    with naming("curate.phrases"):
        load_phrases(config.phrases)
        digests = {"phrases": phrases_digest(config.phrases)}
    with naming("curate.unsafe.list"):
        load_list(config.unsafe.list)
        digests["unsafe"] = list_digest(config.unsafe.list)
    if config.ground.scorer is not None:
        from captioning.curate.measures.dual_encoder import scorer_digest

        digests["scorer"] = scorer_digest(config.ground.scorer)
    if config.select.similarity == "semantic":
        from captioning.curate.measures.embeddings import embedding_digest

        digests["embedding"] = embedding_digest(config.select.embedding)
    return digests


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Say which setting a mistake lies in: a file that is named there can be anybody's."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"'{setting}': {error}") from error


def _refuse_own_checkpoint(stage_run: StageRun) -> None:
    if stage_run.config.ground.scorer is not None:
        from captioning.curate.measures.dual_encoder import refuse_own_checkpoint

        refuse_own_checkpoint(stage_run.config.ground.scorer, stage_run.workspace.root)


def damage(manifest: Manifest) -> str | None:
    """What of an earlier result is gone: its own parts, or captions of its regeneration rounds."""
    workspace = Workspace(Location.of(manifest.store).parent.parent)
    for fingerprint in manifest.detail.get("rounds", ()):
        more = workspace.manifest(ROUND, fingerprint)
        if more is None:
            return "gone: the manifest of a regeneration round"
        if gone := what_is_gone(more):
            return f"{gone}, of a regeneration round"
    return what_is_gone(manifest)


STAGE = Stage("curate", VERSION, ("ingest", "caption"), CurateConfig, run, external, damage=damage, describe=describe)
