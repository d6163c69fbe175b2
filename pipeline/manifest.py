"""A manifest says what one run of a stage produced: a selection of committed parts, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline import contents, identity
from pipeline.commits import Part
from pipeline.errors import StoreError
from pipeline.identity import union
from pipeline.presentable import presentable_data
from pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

_SEAL = ',\n "checksum": "'  # begins the last line of the file: the digest of all that stands before it


@dataclass(frozen=True)
class Manifest:
    """The result of a stage, by fingerprint.

    `store` is the URI of the folder that part names are relative to; `inputs` maps every input to its digest;
    `counts` are figures for people and reports; `detail` is what downstream stages need beside the parts
    (ingest: shard locations; caption: the selected cells; train: the runs). `digest` is the identity of what came
    out, which downstream fingerprints depend on: unless the stage knows better, that of the parts without their names.
    """

    stage: str
    fingerprint: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    store: str
    parts: tuple[Part, ...]
    counts: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    created_at: str = ""
    seconds: float = 0.0
    digest: str = ""

    def __post_init__(self) -> None:
        """What people read of it shows no secrets, such as those of links that could not be downloaded."""
        for name in ("config", "counts", "warnings"):
            object.__setattr__(self, name, presentable_data(getattr(self, name)))
        object.__setattr__(self, "warnings", tuple(self.warnings))
        if not self.digest:
            computed = identity.digest({"parts": union(part.content for part in self.parts), "detail": self.detail})
            object.__setattr__(self, "digest", computed)

    def location(self, part: Part) -> Location:
        """Where a part lies."""
        return Location.of(self.store) / part.name

    def read(
        self, part: Part, schema: pa.Schema, columns: Sequence[str] | None = None, *, filters: Any = None
    ) -> pa.Table:
        """The table of a part. Raises `StoreError` if its content is not what its record says."""
        from pipeline import schemas

        recorded = (part.digest, self.stage)
        return schemas.read(self.location(part), schema, columns, filters=filters, recorded=recorded)

    def batches(self, part: Part, schema: pa.Schema, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """The table of a part, so many rows at a time. Raises as `read` does."""
        from pipeline import schemas

        return schemas.batches(self.location(part), schema, columns, rows, recorded=(part.digest, self.stage))

    def absent(self) -> list[Part]:
        """The parts whose file is gone or has another size: found by listing folders, without reading any."""
        sizes: dict[str, int] = {}
        for folder in sorted({part.name.partition("/")[0] for part in self.parts if "/" in part.name}):
            place = Location.of(self.store)
            sizes |= {file.uri: size for file, size in (place / folder).files(recursive=True)}
        return [part for part in self.parts if self._size(part, sizes) != part.bytes]

    def _size(self, part: Part, listed: Mapping[str, int]) -> int | None:
        file = self.location(part)
        if "/" in part.name:
            return listed.get(file.uri)
        return file.size() if file.exists() else None

    def select(self, prefix: str) -> tuple[Part, ...]:
        """The parts whose name starts with `prefix`, in name order."""
        return tuple(sorted((p for p in self.parts if p.name.startswith(prefix)), key=lambda p: p.name))

    def check(self, part: Part) -> None:
        """Raise `StoreError` if a part, which somebody else is about to read, is not what its record says."""
        location = self.location(part)
        try:
            contents.check(location, location.read(), part.digest, self.stage)
        except FileNotFoundError as error:
            raise StoreError(f"{location} is gone; make it again: holism {self.stage} CONFIG") from error

    def of_shard(self, shard: str) -> tuple[Part, ...]:
        """The parts that hold something of a shard, in name order."""
        return self._by_shard.get(shard, ())

    @cached_property
    def _by_shard(self) -> Mapping[str, tuple[Part, ...]]:
        """Looked up very often, of very many parts: sorted once."""
        by_shard: dict[str, list[Part]] = {}
        for part in sorted(self.parts, key=lambda part: part.name):
            for shard in part.detail.get("shards") or filter(None, [part.detail.get("shard")]):
                by_shard.setdefault(shard, []).append(part)
        return {shard: tuple(parts) for shard, parts in by_shard.items()}

    def __getstate__(self) -> dict[str, Any]:
        return self._fields()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to_bytes(self) -> bytes:
        """JSON text of the manifest, with a line for each part: there may be very many."""
        head = {name: value for name, value in self._fields().items() if name != "parts"}
        parts = ",\n".join(json.dumps(part.to_json(), ensure_ascii=False) for part in self.parts)
        text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        body = f'{text},\n "parts": [\n{parts}\n ]'
        return f'{body}{_SEAL}{identity.digest(body.encode())}"\n}}'.encode()

    @classmethod
    def load(cls, location: Location) -> Manifest:
        """Read a manifest; a damaged one is named. Those of versions before 0.2 have no checksum, but a digest."""
        problem = "its content does not have the checksum it names"
        try:
            text = location.read()
            body, seal, checksum = text.rpartition(_SEAL.encode())
            data = json.loads(text)
            sound = data.pop("checksum") == identity.digest(body) and checksum.endswith(b'"\n}') if seal else True
            if sound and data["digest"]:
                parts = tuple(Part.from_json(part) for part in data.pop("parts"))
                return cls(**{**data, "parts": parts, "warnings": tuple(data["warnings"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = str(error)
        raise StoreError(f"the manifest {location} is damaged ({problem}); delete it and run the stage again")
