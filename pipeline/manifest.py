"""A manifest says what one run of a stage produced: a selection of committed parts, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.commits import Part
from pipeline.errors import StoreError
from pipeline.identity import digest
from pipeline.presentable import presentable_data
from pipeline.storage import Location


@dataclass(frozen=True)
class Manifest:
    """The result of a stage, by fingerprint.

    `store` is the URI of the folder that part names are relative to; `inputs` maps every input to its digest;
    `counts` are figures for people and reports; `detail` is what downstream stages need beside the parts
    (ingest: shard locations; caption: the selected cells; train: the runs).
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

    def __post_init__(self) -> None:
        """What people read of it shows no secrets, such as those of links that could not be downloaded."""
        for name in ("config", "counts", "warnings"):
            object.__setattr__(self, name, presentable_data(getattr(self, name)))
        object.__setattr__(self, "warnings", tuple(self.warnings))

    @property
    def digest(self) -> str:
        """Identity of the content; downstream fingerprints depend on it."""
        return digest({"parts": sorted((part.name, part.digest) for part in self.parts), "detail": self.detail})

    def location(self, part: Part) -> Location:
        """Where a part lies."""
        return Location.of(self.store) / part.name

    def select(self, prefix: str) -> tuple[Part, ...]:
        """The parts whose name starts with `prefix`, in name order."""
        return tuple(sorted((p for p in self.parts if p.name.startswith(prefix)), key=lambda p: p.name))

    def to_bytes(self) -> bytes:
        """JSON text of the manifest, with a line for each part: there may be very many."""
        head = {name: value for name, value in vars(self).items() if name != "parts"} | {"digest": self.digest}
        parts = ",\n".join(json.dumps(part.to_json(), ensure_ascii=False) for part in self.parts)
        text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        return f'{text},\n "parts": [\n{parts}\n ]\n}}'.encode()

    @classmethod
    def load(cls, location: Location) -> Manifest:
        """Read a manifest; a damaged one is named."""
        try:
            data = json.loads(location.read())
            recorded = data.pop("digest")
            parts = tuple(Part.from_json(part) for part in data.pop("parts"))
            manifest = cls(**{**data, "parts": parts, "warnings": tuple(data["warnings"])})
            problem = None if manifest.digest == recorded else "its content does not have the digest it names"
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            problem = str(error)
        if problem is not None:
            raise StoreError(f"the manifest {location} is damaged ({problem}); delete it and run the stage again")
        return manifest
