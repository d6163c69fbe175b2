"""The ingest stage: from a source of images to shards and a manifest that names them."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config import semantic
from pipeline.errors import InputError
from pipeline.identity import digest, union
from pipeline.ingest import summary
from pipeline.ingest.config import FolderSource, IngestConfig, UrlSource, WebdatasetSource
from pipeline.ingest.describe import describe
from pipeline.ingest.summary import Ingested, reasons
from pipeline.ingest.tally import Tally
from pipeline.manifest import Manifest
from pipeline.stage import Outcome, Stage, StageRun, what_is_gone
from pipeline.storage import Location
from pipeline.summary import counted

SETTINGS_DIGITS = 12


def listing(config: IngestConfig) -> Mapping[str, str]:
    """Digest of what the source lists, so that new, changed and removed images are noticed."""
    source = config.source
    if isinstance(source, WebdatasetSource):
        from pipeline.ingest.webdataset import find_tars

        return {"source": digest([(tar.uri, tar.stamp) for tar in find_tars(source)])}
    if isinstance(source, FolderSource):
        from pipeline.ingest.folder import Folder

        return {"source": digest([(item.name, item.stamp) for item in Folder(source).items()])}
    from pipeline.ingest.urls import list_digest

    return {"source": list_digest(source)}


def run(stage_run: StageRun) -> Outcome:
    """Bring the store of these settings up to date with the source."""
    config: IngestConfig = stage_run.config
    settings = digest(semantic(config))[:SETTINGS_DIGITS]
    store = stage_run.workspace.folder("ingest") / settings
    ingested = _ingested(config, store, stage_run.retry_failed)
    counts = summary.counts(ingested, store)
    if not counts["images"]:
        raise InputError(_nothing_usable(config, ingested, counts["errors"]))
    return Outcome(
        store=store.uri,
        parts=ingested.parts,
        counts=counts,
        detail={"shards": {part.detail["shard"]: part.detail["tar"] for part in ingested.parts}},
        digest=digest({"rows": union(part.content for part in ingested.parts)}),  # wherever the tars lie
        warnings=summary.warnings(config, ingested, counts),
    )


def _ingested(config: IngestConfig, store: Location, retry_failed: bool) -> Ingested:
    """The parts of the store, brought up to date, and what the source left out."""
    source = config.source
    if isinstance(source, WebdatasetSource):
        from pipeline.ingest.webdataset import find_tars, index_tars

        left_out = Tally()
        tars = find_tars(source, left_out)
        indexed = index_tars(tars, store, source, workers=config.workers, retry_failed=retry_failed)
        return Ingested(indexed.parts, left_out, Tally(), unusable=indexed.unusable)
    from pipeline.ingest.folder import Folder
    from pipeline.ingest.packing import pack_source
    from pipeline.ingest.urls import UrlList

    opened = UrlList(source, store, config.workers) if isinstance(source, UrlSource) else Folder(source)
    parts = pack_source(
        opened,
        store,
        shard_images=config.shard_images,
        shard_bytes=config.shard_bytes,
        resize=config.resize,
        workers=config.workers,
        retry_failed=retry_failed,
    )
    return Ingested(parts, opened.left_out, opened.mended, opened.warnings)


def _nothing_usable(config: IngestConfig, ingested: Ingested, errors: int) -> str:
    reason = reasons(ingested.parts).most_common(1)[0][0]
    if config.source.kind == "urls":
        return (
            f"no link of {config.source.path} gave an image ({errors:,} in all, most often: {reason}); "
            "check the network and the list, then run again: all are tried again"
        )
    return f"no image of {config.source.path} can be used ({errors:,} in all, most often: {reason})"


def damage(manifest: Manifest) -> str | None:
    """What of an earlier result is gone: images parts, or tars that were packed here."""
    store = Location.of(manifest.store)
    own = {part.detail["tar"]: part.detail["tar_bytes"] for part in manifest.parts if "tar_bytes" in part.detail}
    sizes: dict[str, int] = {}
    for folder in {name.rpartition("/")[0] for name in own}:
        sizes |= {file.uri: size for file, size in (store / folder).files()}
    lost = [name for name, size in own.items() if sizes.get((store / name).uri, -1) < size]
    if lost:
        return f"gone or cut: {len(lost):,} of its {counted(len(own), 'shard')}, such as {lost[0]}"
    return what_is_gone(manifest)


STAGE = Stage("ingest", 2, (), IngestConfig, run, external=listing, damage=damage, describe=describe)
