"""Where curation finds the tables of a shard: references only, small enough to be sent to other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.commits import Part
from pipeline.identity import digest, union
from pipeline.manifest import Manifest


@dataclass(frozen=True)
class CurationInput:
    """The images of an ingest manifest, the captions of the caption stage and those of regeneration rounds."""

    ingest: Manifest
    captions: tuple[Manifest, ...]

    def with_round(self, manifest: Manifest) -> CurationInput:
        """The same with the captions of a regeneration round."""
        return replace(self, captions=(*self.captions, manifest))

    def shards(self) -> list[str]:
        """Names of all shards, in order."""
        from pipeline.ingest import shard_names

        return shard_names(self.ingest)

    def captions_of(self, shard: str, columns: Sequence[str]) -> pa.Table:
        """The captions of a shard, without structured answers as a whole: their fields are captions of their own."""
        from captioning.store import shard_captions

        tables = [
            shard_captions(manifest, shard, columns, structured=False, ingest=self.ingest)
            for manifest in self.captions
        ]
        return pa.concat_tables(tables).unify_dictionaries()

    def images_of(self, shard: str) -> pa.Table:
        """The images table of a shard."""
        from pipeline.ingest import shard_images

        return shard_images(self.ingest, shard)

    def tar_of(self, shard: str) -> str:
        """Where the shard's pictures lie."""
        from pipeline.ingest import shard_uris

        return shard_uris(self.ingest)[shard]

    def caption_digests(self) -> Mapping[str, str]:
        """What identifies the captions of each shard, and the images that they are found for."""
        chosen = [digest(sorted(manifest.detail["cells"])) for manifest in self.captions]  # which rows are meant
        images = self.image_digests()
        return {
            shard: digest(
                [images[shard], chosen]
                + [union(part.content for part in manifest.of_shard(shard)) for manifest in self.captions]
            )
            for shard in self.shards()
        }

    def image_digests(self) -> Mapping[str, str]:
        """What identifies the images of each shard."""
        return {_shard_of(part): part.digest for part in self.ingest.select("images/")}


def _shard_of(part: Part) -> str:
    return part.name.removeprefix("images/").removesuffix(".parquet")
