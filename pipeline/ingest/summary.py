"""What a run of ingest says in the end: figures, and warnings about what was left out, by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import schemas
from pipeline.commits import Part
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.names import HIDDEN
from pipeline.ingest.tally import Tally
from pipeline.storage import Location
from pipeline.summary import counted

FEW_DOWNLOADED = 0.5  # below this share of links that work, the warning says what usually helps
FEW_REPEATS = 0.05  # above this share of rows whose picture another row has too, there is a warning
MOST_TARS = 5  # that are named one by one


@dataclass(frozen=True)
class Ingested:
    """The parts of a store that is up to date, and what its source holds beside them.

    `unusable` has the tars that are of no use, and why; `told` are sentences of the source.
    """

    parts: Sequence[Part]
    left_out: Tally
    mended: Tally
    told: Sequence[str] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Add what was counted for each part, in this run or an earlier one."""
        self.left_out.update(part.detail.get("left_out", {}) for part in self.parts)
        self.mended.update(part.detail.get("mended", {}) for part in self.parts)


def counts(ingested: Ingested, store: Location) -> dict[str, Any]:
    """Figures for people and reports, the plain ones first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["image_id", "alt_text"]
    tables = [
        schemas.read(store / part.name, schemas.IMAGES, columns, recorded=(part.digest, "ingest"))
        for part in ingested.parts
    ]
    table = pa.concat_tables(tables)
    usable = table.filter(pc.is_valid(table["image_id"]))
    return {
        "images": usable.num_rows,
        "errors": table.num_rows - usable.num_rows,
        "with_alt_text": usable.num_rows - usable["alt_text"].null_count,
        "distinct_images": pc.count_distinct(usable["image_id"]).as_py(),
        "shards": len(ingested.parts),
        **({"unusable_tars": len(ingested.unusable)} if ingested.unusable else {}),
        "reasons": dict(reasons(ingested.parts).most_common(10)),
        "left_out": ingested.left_out.counts(),
        "mended": ingested.mended.counts(),
    }


def reasons(parts: Sequence[Part]) -> Counter[str]:
    """The most frequent errors of the rows, with how often each was met."""
    counted: Counter[str] = Counter()
    for part in parts:
        counted.update(part.detail["reasons"])
    return counted


def warnings(config: IngestConfig, ingested: Ingested, figures: Mapping[str, Any]) -> list[str]:
    """Sentences about all that is not as it should be."""
    images, errors, described = figures["images"], figures["errors"], figures["with_alt_text"]
    said = []
    if errors:
        reason, count = reasons(ingested.parts).most_common(1)[0]
        noun = "link" if config.source.kind == "urls" else "image"
        said.append(
            f"{errors:,} of {counted(images + errors, noun)} could not be used (most often, {counted(count, 'time')}: "
            f"{reason}); the images table names each, with status error"
        )
    if config.source.kind == "urls" and images < FEW_DOWNLOADED * (images + errors):
        said.append(
            "fewer than half of the links work: if the reasons are time-outs or name resolution, lower "
            "ingest.source.threads or use a caching name server, then run ingest with --retry-failed"
        )
    if ingested.unusable:
        tars = len(ingested.unusable) + len(ingested.parts)
        said.append(
            f"{len(ingested.unusable):,} of {counted(tars, 'tar')} cannot be used "
            f"(--retry-failed looks at them again): {_first(list(ingested.unusable.values()))}"
        )
    damaged = [f"{p.detail['tar']}: {p.detail['damage']}" for p in ingested.parts if p.detail.get("damage")]
    said += damaged[:MOST_TARS]
    if len(damaged) > MOST_TARS:
        more = counted(len(damaged) - MOST_TARS, "more tar is", "more tars are")
        said.append(f"{more} damaged; the records of the parts say where")
    if left_out := ingested.left_out.without(HIDDEN):
        said.append(f"not used: {left_out}")
    if ingested.mended:
        said.append(f"mended: {ingested.mended}")
    said += ingested.told
    if 0 < described < images:
        said.append(f"{counted(images - described, 'image has', 'images have')} no alt text (of {images:,})")
    return said + _repeats(images, figures["distinct_images"])


def _repeats(images: int, distinct: int) -> list[str]:
    """What is to be known of a data set with a row for every caption, or with many copies."""
    if images - distinct <= FEW_REPEATS * images:
        return []
    repeated = counted(images - distinct, "row has", "rows have")
    said = f"{repeated} the picture of an earlier row (of {images:,} rows); a picture is asked about once and is one "
    return [f"{said}sample in training, with the texts of all its rows"]


def _first(reasons: Sequence[str]) -> str:
    more = f"; and {len(reasons) - MOST_TARS:,} more" if len(reasons) > MOST_TARS else ""
    return "; ".join(reasons[:MOST_TARS]) + more
