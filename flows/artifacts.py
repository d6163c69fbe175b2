"""What a stage did, as Prefect artifacts: figures, tables of counts, samples and links."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import schemas
from pipeline.manifest import Manifest
from pipeline.progress import duration

SAMPLE_ROWS = 12
# The table a stage's first part holds, and the columns of it that people want to see.
SAMPLES = {
    "ingest": ("images/", schemas.IMAGES, ["key", "width", "height", "format", "alt_text", "status", "error"]),
    "caption": ("captions/", schemas.CAPTIONS, ["key", "perspective", "granularity", "text", "status"]),
    "curate": ("verdicts/", schemas.VERDICTS, ["key", "keep", "gadget", "reason", "clean_text"]),
    "evaluate": ("results", schemas.RESULTS, ["run", "dataset", "readout", "query", "metric", "value", "chance", "n"]),
}


def publish(manifest: Manifest) -> None:
    """Publish a stage's artifacts under keys of its name."""
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    stage = manifest.stage
    create_markdown_artifact(key=f"{stage}-summary", markdown=summary(manifest), description=f"{stage}: what was done")
    for name, counts in manifest.counts.items():
        if isinstance(counts, Mapping) and counts:
            rows = [{name.replace("_", " "): key, "count": value} for key, value in counts.items()]
            create_table_artifact(key=f"{stage}-{_slug(name)}", table=rows, description=f"{stage}: {name}")
    rows = samples(manifest)
    if rows:
        create_table_artifact(key=f"{stage}-samples", table=rows, description=f"{stage}: first rows")
    report = manifest.detail.get("report")
    if report:
        place = f"{manifest.store}/{report}"
        link = place if "://" in place else f"file://{place}"
        create_link_artifact(key=f"{stage}-report", link=link, link_text="report", description="the HTML report")


def summary(manifest: Manifest) -> str:
    """A stage's figures and warnings as markdown."""
    lines = [
        f"## {manifest.stage}",
        f"`{manifest.fingerprint}`, {duration(manifest.seconds)}, {len(manifest.parts)} parts in `{manifest.store}`",
        "",
        "| figure | value |",
        "| --- | --- |",
    ]
    plain = {key: value for key, value in manifest.counts.items() if isinstance(value, (int, float, str))}
    lines += [f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in plain.items()]
    lines += ["", *(f"- warning: {_cell(warning)}" for warning in manifest.warnings)]
    return "\n".join(lines)


def samples(manifest: Manifest) -> list[dict[str, Any]]:
    """The first rows of the stage's table, as text."""
    if manifest.stage not in SAMPLES:
        return []
    prefix, schema, columns = SAMPLES[manifest.stage]
    parts = manifest.select(prefix)
    if not parts:
        return []
    rows = manifest.read(parts[0], schema, columns).slice(0, SAMPLE_ROWS).to_pylist()
    return [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]


def _cell(value: Any) -> str:
    text = f"{value:,.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower()).strip("-")
