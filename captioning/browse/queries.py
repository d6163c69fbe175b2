"""What the pages ask of a snapshot. Values reach SQL as parameters only, never as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode

from captioning.browse.catalog import Snapshot

PAGE_IMAGES = 24
HISTOGRAM_BARS = 24
MAX_ASKED = 500  # characters of a filter's value; pages repeat them in their links
MAX_KEY = 500  # characters of a key in an address; a longer key stands there as its hash
SORTS = {
    "": ("in order of shards", "i.image"),
    "diverse": ("most diverse first", "i.mean_similarity ASC NULLS LAST, i.image"),
    "alike": ("most alike first", "i.mean_similarity DESC NULLS LAST, i.image"),
}
# Conditions on one caption `c`, and on an image `i`, by the name of the form's field.
CAPTION_CONDITIONS = {
    "perspective": "c.perspective = $perspective",
    "verdict": "c.verdict = $verdict",
    "reason": "c.reason = $reason",
    "model": "c.model = $model",
}
STATUSES = {
    "ok": ("answered", "c.status = 'ok'"),
    "caption_error": ("caption failed", "c.status = 'error'"),
    "image_error": ("image unreadable", None),
}
TEXT_CONDITION = "(contains(lower(c.shown), lower($q)) OR contains(lower(c.text), lower($q)))"
IMAGE_TEXT_CONDITION = (
    "(contains(lower(i.alt_text), lower($q)) OR contains(lower(i.key), lower($q)) "
    "OR contains(lower(i.source), lower($q)))"
)


@dataclass(frozen=True)
class Filters:
    """What a viewer asked for; empty fields ask for nothing."""

    q: str = ""
    perspective: str = ""
    verdict: str = ""
    reason: str = ""
    model: str = ""
    status: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filters:
        """Read a query string; what makes no sense is left out."""
        known = {
            name: query.get(name, "").strip()[:MAX_ASKED] for name in (*CAPTION_CONDITIONS, "q", "status", "sort")
        }
        page = query.get("page", "1")
        filters = cls(**known, page=max(int(page), 1) if page.isascii() and page.isdecimal() and len(page) < 10 else 1)
        return replace(
            filters,
            status=filters.status if filters.status in STATUSES else "",
            sort=filters.sort if filters.sort in SORTS else "",
        )

    def url(self, **changes: Any) -> str:
        """The address of this view of the images with some fields changed; other filters start at page one."""
        fields = asdict(replace(self, **{"page": 1, **changes}))
        query = urlencode({name: value for name, value in fields.items() if value and (name, value) != ("page", 1)})
        return f"/images?{query}" if query else "/images"

    @property
    def active(self) -> bool:
        """Whether anything is left out."""
        return replace(self, page=1, sort="") != Filters()

    def parameters(self) -> dict[str, str]:
        """The parameters that the conditions name."""
        return {name: value for name in (*CAPTION_CONDITIONS, "q") if (value := getattr(self, name))}

    def caption_conditions(self) -> list[str]:
        """Conditions that the shown captions fulfil; a text that is searched only picks images."""
        wanted = [condition for name, condition in CAPTION_CONDITIONS.items() if getattr(self, name)]
        status = STATUSES[self.status][1] if self.status else None
        return [*wanted, status] if status else wanted

    def image_conditions(self) -> list[str]:
        """Conditions that the listed images fulfil."""
        wanted = ["i.status = 'error'"] if self.status == "image_error" else []
        captions = self.caption_conditions()
        if self.q:
            spoken = _has_caption([*captions, TEXT_CONDITION])
            wanted.append(spoken if captions else f"({spoken} OR {IMAGE_TEXT_CONDITION})")
        elif captions:
            wanted.append(_has_caption(captions))
        return wanted or ["true"]


def _has_caption(conditions: list[str]) -> str:
    return f"i.image IN (SELECT c.image FROM captions c WHERE {' AND '.join(conditions)})"


def find_images(snapshot: Snapshot, filters: Filters) -> tuple[int, list[dict[str, Any]]]:
    """How many images there are, and one page of them, each with its captions grouped by perspective."""
    where = " AND ".join(filters.image_conditions())
    parameters = filters.parameters() if "$" in where else {}
    total = snapshot.row(f"SELECT count(*) AS n FROM images i WHERE {where}", parameters)["n"]
    start = (filters.page - 1) * PAGE_IMAGES
    images = snapshot.rows(
        f"SELECT * FROM images i WHERE {where} ORDER BY {SORTS[filters.sort][1]} LIMIT {PAGE_IMAGES} OFFSET {start}",
        parameters,
    )
    captions = _captions_of(snapshot, [image["image"] for image in images])
    shown = _captions_of(snapshot, [image["image"] for image in images], filters)
    for image in images:
        _attach(image, shown.get(image["image"], []))
        image["hidden"] = len(captions.get(image["image"], [])) - len(shown.get(image["image"], []))
    return total, images


def locate(snapshot: Snapshot, shard: str, key: str) -> dict[str, Any] | None:
    """The row of one image, or None; `key` is what its address has."""
    known = f"(key = $key OR (length(key) > {MAX_KEY} AND 'sha256:' || sha256(key) = $key))"
    images = snapshot.rows(f"SELECT * FROM images WHERE shard = $shard AND {known}", {"shard": shard, "key": key})
    return images[0] if images else None


def find_image(snapshot: Snapshot, shard: str, key: str) -> dict[str, Any] | None:
    """One image with all its captions and its neighbours, or None."""
    image = locate(snapshot, shard, key)
    if image is None:
        return None
    _attach(image, _captions_of(snapshot, [image["image"]]).get(image["image"], []))
    near = snapshot.rows("SELECT * FROM images WHERE image IN (?, ?)", [image["image"] - 1, image["image"] + 1])
    for name, number in (("previous", image["image"] - 1), ("next", image["image"] + 1)):
        image[name] = next((_addresses(other) for other in near if other["image"] == number), None)
    return image


def _captions_of(snapshot: Snapshot, images: list[int], filters: Filters | None = None) -> dict[int, list[Any]]:
    conditions = filters.caption_conditions() if filters else []
    where = " AND ".join(["c.image IN (SELECT unnest($images::BIGINT[]))", *conditions])
    given = filters.parameters() if filters else {}
    parameters = {name: value for name, value in given.items() if f"${name}" in where}
    rows = snapshot.rows(
        f"SELECT * FROM captions c WHERE {where} ORDER BY perspective, granularity, model, caption_id",
        {**parameters, "images": images},
    )
    captions: dict[int, list[Any]] = {}
    for row in rows:
        captions.setdefault(row["image"], []).append(row)
    return captions


def _attach(image: dict[str, Any], captions: list[dict[str, Any]]) -> None:
    """Put captions into an image by perspective, and the addresses of its page and its picture."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for caption in captions:
        groups.setdefault(caption["perspective"] or "?", []).append(caption)
    image["groups"] = groups
    _addresses(image)


def _addresses(image: dict[str, Any]) -> dict[str, Any]:
    key = image["key"] if len(image["key"]) <= MAX_KEY else f"sha256:{sha256(image['key'].encode()).hexdigest()}"
    place = f"{quote(image['shard'], safe='')}/{quote(key, safe='')}"
    image["page"] = f"/images/{place}"
    # The version lets a browser keep the picture for good, and fetch it again when it is another one.
    image["picture"] = f"/image/{place}?v={image['image_id'][:12]}" if image["image_id"] else None
    return image


def choices(snapshot: Snapshot) -> dict[str, list[str]]:
    """The values that the filters offer."""
    columns = ("perspective", "verdict", "reason", "model")
    return {
        column: [
            row["value"]
            for row in snapshot.rows(
                f"SELECT DISTINCT {column} AS value FROM captions WHERE {column} IS NOT NULL ORDER BY 1"
            )
        ]
        for column in columns
    }


def overview(snapshot: Snapshot) -> dict[str, Any]:
    """The figures of the first page."""
    counts = "count(*) AS captions, count(*) FILTER (verdict = 'kept') AS kept, "
    counts += "count(*) FILTER (verdict = 'dropped') AS dropped, count(*) FILTER (status = 'error') AS errors"
    rows = snapshot.rows("SELECT granularity, words, count(*) AS n FROM captions WHERE words > 0 GROUP BY ALL")
    return {
        "images": snapshot.row(
            "SELECT count(*) AS images, count(*) FILTER (status = 'error') AS errors, "
            "count(DISTINCT image_id) AS distinct_images, count(DISTINCT shard) AS shards, "
            "avg(mean_similarity) AS mean_similarity, avg(distinct_2) AS distinct_2 FROM images"
        ),
        "captions": snapshot.row(f"SELECT {counts}, count(DISTINCT image) AS images FROM captions"),
        "perspectives": snapshot.rows(
            f"SELECT perspective, granularity, {counts}, avg(words) AS words, avg(output_tokens) AS tokens "
            "FROM captions GROUP BY perspective, granularity ORDER BY perspective, granularity"
        ),
        "reasons": snapshot.rows(
            "SELECT gadget, reason, count(*) AS captions FROM captions WHERE reason IS NOT NULL "
            "GROUP BY gadget, reason ORDER BY captions DESC, reason"
        ),
        "models": snapshot.rows(
            f"SELECT model, engine, {counts}, sum(prompt_tokens) AS prompt_tokens, "
            "sum(cached_tokens) AS cached_tokens, sum(output_tokens) AS output_tokens "
            "FROM captions GROUP BY model, engine ORDER BY model, engine"
        ),
        "lengths": {
            granularity: histogram({row["words"]: row["n"] for row in rows if row["granularity"] == granularity})
            for granularity in ("word", "phrase", "sentence", "paragraph")
            if any(row["granularity"] == granularity for row in rows)
        },
    }


def histogram(counts: Mapping[int, int]) -> list[tuple[str, int]]:
    """Bars (label, count) of equal width over word counts, at most `HISTOGRAM_BARS`; the last one is open."""
    total = sum(counts.values())
    below, limit = 0, max(counts)
    for words in sorted(counts):  # a few very long texts must not squeeze all others into one bar
        below += counts[words]
        if below >= 0.99 * total:
            limit = words
            break
    width = -(-(limit + 1) // HISTOGRAM_BARS)
    bars = [0] * (limit // width + 1)
    for words, count in counts.items():
        bars[min(words // width, len(bars) - 1)] += count
    labels = [f"{i * width}" if width == 1 else f"{i * width}–{i * width + width - 1}" for i in range(len(bars))]
    if max(counts) >= len(bars) * width:
        labels[-1] = f"{(len(bars) - 1) * width}+"
    return list(zip(labels, bars, strict=True))
