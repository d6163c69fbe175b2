"""What a stage did, as Prefect artifacts: its summary, tables of counts, samples, losses and headline figures.

Their keys begin with the workspace's name and a digest of its place: several workspaces may share one server, and
"the latest" of a key is then always that workspace's own. Which flow run made an artifact is Prefect's to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows import losses, samples
from flows.run import Session
from flows.stages import select
from pipeline import schemas
from pipeline.identity import digest
from pipeline.manifest import Manifest
from pipeline.progress import duration
from pipeline.summary import counted, words

SAMPLE_ROWS = 12
PLACE_DIGITS = 6
SAMPLE_COLUMNS = ["key", "width", "height", "format", "alt_text", "status", "error"]  # of the table of images


def publish(session: Session, manifest: Manifest) -> None:
    """Publish a stage's artifacts. Needs the context of a Prefect run."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    name = f"{prefix(session)}-{manifest.stage}"
    for kind, text in markdowns(session, manifest).items():
        create_markdown_artifact(key=f"{name}-{kind}", markdown=text, description=_about(session, manifest, kind))
    for kind, rows in tables(manifest).items():
        if rows:
            create_table_artifact(key=f"{name}-{kind}", table=rows, description=_about(session, manifest, kind))


def prefix(session: Session) -> str:
    """What the keys of a workspace's artifacts begin with."""
    place = session.workspace.root.uri
    return f"{_slug(place.rstrip('/').rpartition('/')[2]) or 'workspace'}-{digest(place)[:PLACE_DIGITS]}"


def markdowns(session: Session, manifest: Manifest) -> dict[str, str]:
    """Texts by kind: the summary, and pictures with their captions or curves of losses."""
    artifacts = {"summary": summary(session, manifest)}
    if manifest.stage in ("caption", "curate"):
        results = {name: resolution.manifest for name, resolution in session.resolve().items()}
        if (ingest := results["ingest"]) is not None and (captions := results["caption"]) is not None:
            curated = manifest if manifest.stage == "curate" else None
            artifacts["samples"] = samples.markdown(ingest, captions, curated)
    if manifest.stage == "train":
        artifacts["losses"] = f"![curves of each run by step]({losses.picture(manifest)})"
    return artifacts


def tables(manifest: Manifest) -> dict[str, list[dict[str, Any]]]:
    """Tables by kind."""
    if manifest.stage == "train":
        return {"runs": losses.table(manifest)}
    tables = {
        _slug(name): [{words(name): key, "count": value} for key, value in counts.items()]
        for name, counts in manifest.counts.items()
        if isinstance(counts, Mapping) and not name.endswith("_by_gadget") and _is_flat(counts)
    }
    if manifest.stage == "caption":
        tables["perspectives"] = [
            {"perspective": name, **own} for name, own in manifest.counts["perspectives"].items()
        ]
    if manifest.stage == "ingest":
        rows = manifest.read(manifest.select("images/")[0], schemas.IMAGES, SAMPLE_COLUMNS).slice(0, SAMPLE_ROWS)
        tables["samples"] = [_as_text(row) for row in rows.to_pylist()]
    if manifest.stage == "curate":
        tables["gadgets"] = _gadgets(manifest.counts)
    if manifest.stage == "evaluate":
        tables["headline"] = _headline(manifest)
    return tables


def summary(session: Session, manifest: Manifest) -> str:
    """A stage's figures and warnings as Markdown."""
    (stage,) = select([manifest.stage])
    told = "\n".join(stage.describe(manifest))
    parts = counted(len(manifest.parts), "part")
    lines = [
        f"## {manifest.stage}",
        f"`{manifest.fingerprint}`, {duration(manifest.seconds)}, {parts} in `{manifest.store}`",
        f"\n```\n{told}\n```\n",
        *(f"- warning: {samples.text(warning)}" for warning in manifest.warnings),
    ]
    if manifest.stage == "evaluate":
        lines.append(f"\n`{session.command('browse')}` shows the report at http://127.0.0.1:8808/report")
    return "\n".join(lines)


def _headline(manifest: Manifest) -> list[dict[str, Any]]:
    from evaluation.describe import headline_rows

    headline = manifest.detail["headline"]
    rows = []
    for benchmark in dict.fromkeys(name for figures in headline.values() for name in figures):
        for name, chance, values in headline_rows({run: figures[benchmark] for run, figures in headline.items()}):
            rows.append({"benchmark": benchmark, "figure": name, "chance": chance, **values})
    return rows


def _gadgets(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = ("seen", "dropped", "changed", "seconds")
    return [
        {"gadget": gadget, **{column: counts[f"{column}_by_gadget"].get(gadget) for column in columns}}
        for gadget in counts["seen_by_gadget"]
    ]


def _about(session: Session, manifest: Manifest, kind: str) -> str:
    return f"{manifest.stage}: {words(kind)}, of the workspace {session.workspace.root}"


def _as_text(row: Mapping[str, Any]) -> dict[str, str]:
    return {key: "" if value is None else str(value) for key, value in row.items()}


def _is_flat(counts: Mapping[str, Any]) -> bool:
    return bool(counts) and not any(isinstance(value, Mapping) for value in counts.values())


def _slug(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip("-")
