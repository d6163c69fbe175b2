"""What to ingest, and how it is packed."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config import Section, added, operational
from pipeline.texts import Encoding

KIB, MIB = 1 << 10, 1 << 20
Column = str | Annotated[int, Field(ge=0, strict=True)]  # its name, or its number from 0


def _header() -> Any:
    return added(
        None,
        description="whether the first line of a csv or tsv names the columns; empty: unless all are given by number",
    )


def _encoding() -> Any:
    return added(
        "utf-8",
        description="how texts are read that are neither UTF-8 nor marked as UTF-16: utf-8 leaves them out and counts "
        "them, windows-1252 reads them as such",
    )


def decoders() -> int:
    """one for each core, at most 8"""
    return min(8, os.cpu_count() or 1)


class _Files(Section):
    """What folders and tars have in common: texts in files, and sizes that were decided elsewhere."""

    text: tuple[str, ...] | None = added(
        None,
        description="which texts count, by name, the first that is not empty: what a text file ends in (txt, text, "
        "caption), a field of a .json file, or in tars a role (outputs, of s0.outputs.txt). Without it: txt, caption, "
        "alt_text, text, json, and in tars then a single text of another role",
    )
    lines: Literal["first", "all"] = added(
        "all", description="how much of a text file counts: all of it, or its first line that is not empty"
    )
    encoding: Encoding = _encoding()
    follow_links: bool = added(
        False, description="whether symbolic links may lead out of the folder; those that do are left out and counted"
    )
    max_image_bytes: int = added(
        256 * MIB, ge=1, description="a longer picture is an error row: pictures are held in memory one at a time"
    )
    max_text_bytes: int = added(
        64 * KIB, ge=1, description="a longer text is left out and counted; a .json file may be 16 times as long"
    )


class FolderSource(_Files):
    """A folder of images, searched through all its subfolders.

    Alt text comes from a `.txt`, `.caption` or `.json` file beside the image, or from the table that `captions` names.
    """

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1, description="folder on any fsspec location")
    captions: str | None = Field(
        None,
        min_length=1,
        description="csv, tsv, jsonl or parquet table, a folder of these or a glob, with a file column (path inside "
        "the folder) and a caption column; a relative path is inside the folder. Without it, a text beside an "
        "image is its alt text",
    )
    file_column: Column = Field("file", description="its name, or its number counted from 0")
    caption_column: Column = Field(
        "caption",
        description="its name or number; each row of a picture keeps its text, of a list in one row the first counts",
    )
    header: bool | None = _header()


class WebdatasetSource(_Files):
    """WebDataset tars, indexed where they are and never copied. Alt text comes from text or `.json` members."""

    kind: Literal["webdataset"] = "webdataset"
    path: str | tuple[str, ...] = Field(description="a tar, a folder of tars, a glob, or a list of these")


class UrlSource(Section):
    """A table of links, downloaded once by img2dataset; dead links become error rows."""

    kind: Literal["urls"] = "urls"
    path: str = Field(min_length=1, description="parquet, csv, tsv or jsonl table, a folder of these, or a glob")
    url_column: Column = Field("url", description="its name, or its number counted from 0")
    caption_column: Column | None = Field(
        "caption", description="column of the alt text, by name or number; null if there is none"
    )
    header: bool | None = _header()
    encoding: Encoding = _encoding()
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


AnySource = Annotated[FolderSource | WebdatasetSource | UrlSource, Field(discriminator="kind")]


class IngestConfig(Section):
    """Images: where they come from, and how they are packed into shards."""

    source: AnySource
    shard_images: int = Field(
        1000, ge=1, description="images of one shard; a shard being packed is held in memory (urls and folders only)"
    )
    shard_bytes: int = added(
        512 * MIB,
        ge=1,
        description="bytes of the images of one shard, as far as they are known beforehand (folders): what bounds "
        "the memory of packing. A longer image has a shard of its own",
    )
    resize: int | None = Field(
        None,
        ge=16,
        description="shrink images whose short side is longer than this many pixels. They are encoded again, "
        "and since an image's id is the hash of its stored bytes, ids then differ from those of the originals",
    )
    workers: int = operational(default_factory=decoders, ge=1, description="processes that decode images")

    @model_validator(mode="after")
    def _tars_stay_as_they_are(self) -> IngestConfig:
        if self.resize is not None and self.source.kind == "webdataset":
            raise ValueError("webdataset tars are indexed where they are and cannot be resized; leave resize out")
        return self
