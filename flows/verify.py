"""Reads everything that the results under a configuration stand on, and compares it with what is on record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from captioning.rounds import ROUND
from flows.run import Session
from pipeline.errors import HolismError, StoreError
from pipeline.ingest import shard_images, shard_names, shard_uris
from pipeline.manifest import Manifest
from pipeline.progress import Progress
from pipeline.shards import ShardReader
from pipeline.summary import counted

KIB = 1024
SHOWN = 20  # damaged files that are named


@dataclass(frozen=True)
class Damage:
    """A file that is not what its record says, and the stage that makes it again."""

    stage: str
    place: str


def verify(session: Session) -> str:
    """Check parts by digest and pictures by id, with progress; returns what was checked, in one line.

    Raises `StoreError`, which names what is damaged and how to make it again.
    """
    results = list(_results(session))
    total = sum(part.bytes for _, manifest in results for part in manifest.parts)
    pictures = [
        (manifest, shard) for stage, manifest in results if stage == "ingest" for shard in shard_names(manifest)
    ]
    progress = Progress("verify", total // KIB, "KiB")
    damaged: list[Damage] = []
    files = 0
    for stage, manifest in results:
        for part in manifest.parts:
            try:
                manifest.check(part)
            except StoreError:
                damaged.append(Damage(stage, manifest.location(part).uri))
            files += 1
            progress.update(part.bytes // KIB)
    progress.close()
    progress = Progress("verify: pictures", len(pictures), "shards")
    checked = 0
    known = {damage.place for damage in damaged}
    for manifest, shard in pictures:
        if manifest.location(manifest.of_shard(shard)[0]).uri in known:
            continue  # nobody knows which pictures it holds
        try:
            checked += _check_pictures(manifest, shard)
        except HolismError:
            damaged.append(Damage("ingest", shard_uris(manifest)[shard]))
        progress.update()
    progress.close()
    if damaged:
        raise StoreError(_report(session, damaged))
    read = f"{counted(files, 'file')} and {counted(checked, 'picture')} of {counted(len(results), 'result')}"
    return f"{read}: all as recorded"


def _results(session: Session) -> Iterator[tuple[str, Manifest]]:
    """The results under this configuration, damaged ones too, and those of regeneration rounds."""
    for name, resolution in session.resolve(damaged=True).items():
        if resolution.problem is not None and session.workspace.manifests(name):
            raise resolution.problem  # then nobody knows which of its results is meant
        manifest = resolution.manifest
        if manifest is None:
            continue
        yield name, manifest
        for fingerprint in manifest.detail.get("rounds", ()):
            more = session.workspace.manifest(ROUND, fingerprint)
            if more is None:
                raise StoreError(
                    f"the manifest of a regeneration round is gone ({ROUND}-{fingerprint}.json); make it again: "
                    f"{session.command('curate')} --retry-failed"
                )
            yield "curate", more


def _check_pictures(manifest: Manifest, shard: str) -> int:
    """Read all pictures of a shard; raises `StoreError` at the first that is not what was ingested."""
    reader = ShardReader(shard_uris(manifest))
    rows = shard_images(manifest, shard, ["image_id", "offset", "size", "status"]).to_pylist()
    usable = [row for row in rows if row["status"] == "ok"]
    for row in usable:
        reader.read(shard, row["offset"], row["size"], row["image_id"])
    return len(usable)


def _report(session: Session, damaged: list[Damage]) -> str:
    lines = [f"\n  {damage.place}" for damage in damaged[:SHOWN]]
    if len(damaged) > SHOWN:
        lines.append(f"\n  and {len(damaged) - SHOWN:,} more")
    stages = list(dict.fromkeys(damage.stage for damage in damaged))
    commands = ", then ".join(f"{session.command(stage)} --retry-failed" for stage in stages)
    return (
        f"{counted(len(damaged), 'file is', 'files are')} gone or damaged; make them again: {commands}{''.join(lines)}"
    )
