"""Stage `curate`: a verdict for every caption and a bundle for every image, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from captioning.curate.config import CurateConfig
from captioning.curate.phrases import phrases_digest
from pipeline.commits import CommitLog, Part
from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.stage import Outcome, Stage, StageRun

NAMED = 5  # shards or reasons named in a message


def run(stage_run: StageRun) -> Outcome:
    """Curate the shards that are not curated yet, and sum up all of them.

    Raises `InputError` if there is no caption, or if no caption of any image is kept.
    """
    from captioning.curate.bundles import TOKENIZER
    from pipeline.ingest import shard_names

    shards = shard_names(stage_run.inputs["ingest"])
    log = CommitLog(stage_run.workspace.folder("curate") / stage_run.fingerprint[:12])
    finished = log.parts()
    done = {shard for shard in shards if all(name in finished for name in _part_names(shard))}
    parts = [finished[name] for shard in sorted(done) for name in _part_names(shard)]
    progress = Progress("curate", len(shards), "shards", done=len(done))
    for shard in shards:
        if shard not in done:
            parts += _curate(stage_run, log, shard)
            progress.update()
    counts = total([part.detail["counts"] for part in parts if part.name.startswith("bundles/")])
    progress.close(f"{counts['kept']:,} of {counts['captions']:,} captions kept")
    check_not_empty(counts)
    warnings = find_warnings(counts, [part for part in parts if part.name.startswith("verdicts/")])
    return Outcome(log.folder.uri, parts, counts, {"tokenizer": TOKENIZER}, warnings)


def _part_names(shard: str) -> tuple[str, str]:
    return f"verdicts/{shard}.parquet", f"bundles/{shard}.parquet"


def _curate(stage_run: StageRun, log: CommitLog, shard: str) -> list[Part]:
    from captioning.curate.bundles import TOKENIZER, clip_token_counter
    from captioning.curate.shard import curate_shard
    from captioning.store import shard_captions
    from pipeline import schemas
    from pipeline.ingest import shard_images

    started = time.monotonic()
    captions = shard_captions(stage_run.inputs["caption"], shard, structured=False)
    images = shard_images(stage_run.inputs["ingest"], shard)
    result = curate_shard(captions, images, stage_run.config, stage_run.fingerprint[:12], clip_token_counter())
    verdicts, bundles = _part_names(shard)
    data = schemas.encode(result.verdicts, schemas.VERDICTS)
    first = log.commit(verdicts, data, rows=len(result.verdicts), detail={"shard": shard})
    data = schemas.encode(result.bundles, schemas.BUNDLES, metadata={"holism.tokenizer": TOKENIZER})
    detail = {"shard": shard, "counts": result.counts}
    second = log.commit(bundles, data, rows=len(result.bundles), seconds=time.monotonic() - started, detail=detail)
    return [first, second]


def total(shards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the counts of shards; tables are sorted by their largest figure."""
    found: dict[str, Any] = {}
    for counts in shards:
        _add(found, counts)
    similarity, images = found.pop("similarity_sum", 0.0), found.pop("similarity_images", 0)
    found["seconds_by_gadget"] = {name: round(spent, 3) for name, spent in found.get("seconds_by_gadget", {}).items()}
    found["mean_similarity"] = round(similarity / images, 4) if images else None
    for name, value in found.items():
        if isinstance(value, dict) and not name.endswith("_by_gadget"):  # gadgets stay in the order they ran
            found[name] = dict(sorted(value.items(), key=lambda item: (-item[1], item[0])))
    return found


def _add(into: dict[str, Any], counts: Mapping[str, Any]) -> None:
    for name, value in counts.items():
        if isinstance(value, Mapping):
            _add(into.setdefault(name, {}), value)
        else:
            into[name] = into.get(name, 0) + value


def check_not_empty(counts: Mapping[str, Any]) -> None:
    """Training on nothing would only fail later and less clearly."""
    if not counts["captions"]:
        raise InputError(
            f"there is nothing to curate: none of the {counts['images']:,} readable images has a caption; "
            "look at what the caption stage reports (holism status CONFIG)"
        )
    if not counts["kept"]:
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in list(counts["reasons"].items())[:NAMED])
        raise InputError(
            f"curation kept none of {counts['captions']:,} captions (dropped as {reasons}); if these are not errors "
            "of the engine, loosen the limits under 'curate' in the configuration"
        )


def find_warnings(counts: Mapping[str, Any], verdicts: Sequence[Part]) -> list[str]:
    """What a user should know although the stage went well."""
    warnings = []
    if silent := sorted(part.detail["shard"] for part in verdicts if not part.rows):
        names = ", ".join(silent[:NAMED]) + (", …" if len(silent) > NAMED else "")
        warnings.append(f"{len(silent)} of {len(verdicts)} shards have no caption at all ({names})")
    if alone := counts["images_without_captions"]:
        warnings.append(
            f"{alone:,} of {counts['images']:,} images keep no caption; "
            f"{counts['images_with_nothing']:,} of them have no alt text either and cannot be trained on"
        )
    return warnings


def _external(config: CurateConfig) -> dict[str, str]:
    return {"phrases": phrases_digest(config.phrases)}


STAGE = Stage("curate", 1, ("ingest", "caption"), CurateConfig, run, _external)
