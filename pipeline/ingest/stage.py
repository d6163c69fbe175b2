"""The ingest stage: from a source of images to shards and a manifest that names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.config import semantic
from pipeline.errors import InputError
from pipeline.identity import digest, union
from pipeline.ingest.config import FolderSource, IngestConfig, UrlSource, WebdatasetSource
from pipeline.manifest import Manifest
from pipeline.stage import Outcome, Stage, StageRun, what_is_gone
from pipeline.storage import Location

if TYPE_CHECKING:
    from pipeline.commits import Part

SETTINGS_DIGITS = 12
FEW_REPEATS = 0.05  # above this share of rows whose picture another row has too, there is a warning
FEW_DOWNLOADED = 0.5  # below this share of links that work, the warning says what usually helps


def listing(config: IngestConfig) -> Mapping[str, str]:
    """Digest of what the source lists, so that new, changed and removed images are noticed."""
    source = config.source
    if isinstance(source, WebdatasetSource):
        from pipeline.ingest.webdataset import find_tars

        return {"source": digest([(tar.location.uri, tar.stamp) for tar in find_tars(source)])}
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
    parts = _parts(config, store, stage_run.retry_failed)
    images = sum(part.rows - part.errors for part in parts)
    errors = sum(part.errors for part in parts)
    if not images:
        raise InputError(_nothing_usable(config, parts, errors))
    distinct = _distinct(store, parts)
    return Outcome(
        store=store.uri,
        parts=parts,
        counts={
            "images": images,
            "errors": errors,
            "distinct_images": distinct,
            "shards": len(parts),
            "reasons": dict(_reasons(parts).most_common(10)),
        },
        detail={"shards": {part.detail["shard"]: part.detail["tar"] for part in parts}},
        digest=digest({"rows": union(part.content for part in parts)}),  # wherever the tars lie
        warnings=_warnings(config, parts, images, errors) + _repeats(images, distinct),
    )


def _parts(config: IngestConfig, store: Location, retry_failed: bool) -> list[Part]:
    source = config.source
    if isinstance(source, WebdatasetSource):
        from pipeline.ingest.webdataset import find_tars, index_tars

        return index_tars(find_tars(source), store, workers=config.workers, retry_failed=retry_failed)
    from pipeline.ingest.folder import Folder
    from pipeline.ingest.packing import pack_source
    from pipeline.ingest.urls import UrlList

    opened = UrlList(source, store, config.workers) if isinstance(source, UrlSource) else Folder(source)
    return pack_source(
        opened,
        store,
        shard_images=config.shard_images,
        resize=config.resize,
        workers=config.workers,
        retry_failed=retry_failed,
    )


def _distinct(store: Location, parts: Sequence[Part]) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline import schemas

    tables = [
        schemas.read(store / part.name, schemas.IMAGES, ["image_id"], recorded=(part.digest, "ingest"))
        for part in parts
    ]
    return int(pc.count_distinct(pa.concat_tables(tables).column("image_id"), mode="only_valid").as_py())


def _reasons(parts: Sequence[Part]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.detail["reasons"])
    return counts


def _nothing_usable(config: IngestConfig, parts: Sequence[Part], errors: int) -> str:
    reason = _reasons(parts).most_common(1)[0][0]
    if config.source.kind == "urls":
        return (
            f"none of the {errors} links of {config.source.path} gave an image (most often: {reason}); "
            "check the network and the list, then run again: all are tried again"
        )
    return f"none of the {errors} images of {config.source.path} can be used (most often: {reason})"


def _warnings(config: IngestConfig, parts: Sequence[Part], images: int, errors: int) -> list[str]:
    warnings = []
    if errors:
        reason, count = _reasons(parts).most_common(1)[0]
        noun = "links" if config.source.kind == "urls" else "images"
        warnings.append(
            f"{errors} of {images + errors} {noun} could not be used (most often, {count} times: {reason}); "
            "the images table names each, with status error"
        )
    if config.source.kind == "urls" and images < FEW_DOWNLOADED * (images + errors):
        warnings.append(
            "fewer than half of the links work: if the reasons are time-outs or name resolution, lower "
            "ingest.source.threads or use a caching name server, then run ingest with --retry-failed"
        )
    for part in parts:
        if part.detail.get("damage"):
            warnings.append(f"{part.detail['tar']}: {part.detail['damage']}; images after that are lost")
        if part.detail.get("unreadable_texts"):
            count = part.detail["unreadable_texts"]
            warnings.append(
                f"{part.detail['tar']}: {count} .json members cannot be read; their images have no alt text"
            )
    return warnings


def _repeats(images: int, distinct: int) -> list[str]:
    """What is to be known of a data set with a row for every caption, or with many copies."""
    if images - distinct <= FEW_REPEATS * images:
        return []
    said = (
        f"{images - distinct:,} of {images:,} rows have a picture that a row before them has; each of the "
        f"{distinct:,} pictures is asked about once and is one sample in training, with the texts of all its rows"
    )
    return [said]


def damage(manifest: Manifest) -> str | None:
    """What of an earlier result is gone: images parts, or tars that were packed here."""
    store = Location.of(manifest.store)
    own = {part.detail["tar"]: part.detail["tar_bytes"] for part in manifest.parts if "tar_bytes" in part.detail}
    sizes: dict[str, int] = {}
    for folder in {name.rpartition("/")[0] for name in own}:
        sizes |= {file.uri: size for file, size in (store / folder).files()}
    lost = [name for name, size in own.items() if sizes.get((store / name).uri, -1) < size]
    if lost:
        return f"gone or cut: {len(lost):,} of its {len(own):,} shards, such as {lost[0]}"
    return what_is_gone(manifest)


STAGE = Stage("ingest", 1, (), IngestConfig, run, external=listing, damage=damage)
