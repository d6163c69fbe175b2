"""What to ingest, and how it is packed."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config import Section, operational


class FolderSource(Section):
    """A folder of images, searched through all its subfolders.

    Alt text comes from a `.txt` file beside the image, or from the table that `captions` names.
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(description="folder on any fsspec location")
    captions: str | None = Field(
        None,
        description="csv, jsonl or parquet table with a file column (path inside the folder) and a caption column; "
        "a relative path is inside the folder. Without it, NAME.txt beside NAME.jpg is the alt text",
    )
    file_column: str = "file"
    caption_column: str = "caption"


class WebdatasetSource(Section):
    """WebDataset tars, indexed where they are and never copied. Alt text comes from `.txt` or `.json` members."""

    kind: Literal["webdataset"] = "webdataset"
    path: str | tuple[str, ...] = Field(description="a tar, a folder of tars, a glob, or a list of these")


class UrlSource(Section):
    """A table of links, downloaded once by img2dataset; dead links become error rows."""

    kind: Literal["urls"] = "urls"
    path: str = Field(description="parquet, tsv or csv table")
    url_column: str = "url"
    caption_column: str | None = Field("caption", description="column of the alt text; null if there is none")
    allow_private_addresses: bool = Field(
        False, description="whether links (and redirects) may lead to loopback, private or link-local addresses"
    )
    timeout: int = operational(10, gt=0, description="seconds a server may stay silent")
    link_seconds: float = operational(
        60,
        gt=0,
        description="seconds a link may take in all, from the look-up of its host to its last byte, with retries",
    )
    link_megabytes: float = operational(
        100, gt=0, description="size of the largest picture that is downloaded; 1 MB is 1,000,000 bytes"
    )
    retries: int = operational(1, ge=0, description="further tries of a link within one run, for faults that may pass")
    threads: int = operational(32, ge=1, description="links in flight per worker")


Source = Annotated[FolderSource | WebdatasetSource | UrlSource, Field(discriminator="kind")]


class IngestConfig(Section):
    """The section `ingest`."""

    source: Source
    shard_images: int = Field(
        1000, ge=1, description="images of one shard; a shard being packed is held in memory (urls and folders only)"
    )
    resize: int | None = Field(
        None,
        ge=16,
        description="shrink images whose short side is longer than this many pixels. They are encoded again, "
        "and since an image's id is the hash of its stored bytes, ids then differ from those of the originals",
    )
    workers: int = operational(
        default_factory=lambda: min(8, os.cpu_count() or 1), ge=1, description="processes that decode images"
    )

    @model_validator(mode="after")
    def _tars_stay_as_they_are(self) -> IngestConfig:
        if self.resize is not None and self.source.kind == "webdataset":
            raise ValueError("webdataset tars are indexed where they are and cannot be resized; leave resize out")
        return self
