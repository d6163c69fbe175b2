"""Stage `curate`: a verdict for every caption and a bundle for every image, in a few steps over the shards.

texts      the text gadgets, shard by shard
corpus     which sentences come again and again over all images
verdicts   the gadgets that need the corpus, the picture or the captions beside; bundles
rounds     images with too little diversity are captioned again, and the steps go over what changed
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from captioning.curate import counts, regenerate
from captioning.curate.config import CurateConfig
from captioning.curate.phrases import phrases_digest
from captioning.curate.steps import Parts, Step
from captioning.curate.unsafe_list import list_digest
from pipeline.commits import Part
from pipeline.config import semantic
from pipeline.identity import digest
from pipeline.stage import Outcome, Stage, StageRun
from pipeline.storage import Location

if TYPE_CHECKING:
    import pyarrow as pa

    from captioning.curate.source import Source

VERSION = 2
# all that the text gadgets depend on
TEXT_SECTIONS = {"phrases", "clean", "reject", "ending", "length", "language", "unsafe", "off_topic"}


@dataclass(frozen=True)
class Curated:
    """The parts of the steps by shard and kind; `store` is the folder of the last one."""

    texts: Mapping[str, Parts]
    verdicts: Mapping[str, Parts]
    store: str

    def total(self) -> dict[str, Any]:
        """The figures of all shards."""
        return counts.total(
            [parts["texts"].detail["counts"] for parts in self.texts.values()]
            + [parts["bundles"].detail["counts"] for parts in self.verdicts.values()]
        )

    def selected(self) -> list[Part]:
        """The parts that the manifest names."""
        return [part for shard in sorted(self.verdicts) for part in self.verdicts[shard].values()]

    def bundles(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of the bundles, shard by shard."""
        from pipeline import schemas

        for shard in sorted(self.verdicts):
            part = Location.of(self.store) / self.verdicts[shard]["bundles"].name
            yield schemas.read(part, schemas.BUNDLES, columns)


def run(stage_run: StageRun) -> Outcome:
    """Curate what is not curated yet, and sum up all of it.

    Raises `InputError` if there is no caption, or if no caption of any image is kept.
    """
    from captioning.curate.bundles import TOKENIZER
    from captioning.curate.source import Source

    config, folder = stage_run.config, stage_run.workspace.folder("curate")
    source = Source(stage_run.inputs["ingest"], (stage_run.inputs["caption"],))
    curated, rounds = curate(config, folder, source), list[dict[str, Any]]()
    for number in range(1, config.regenerate.rounds + 1):
        asked, before = regenerate.request(config.regenerate, number, curated, stage_run.workspace.folder("caption"))
        if asked is None:
            break
        more = regenerate.service(stage_run.services)(asked)
        source = replace(source, captions=(*source.captions, more))
        curated = curate(config, folder, source)
        rounds.append(regenerate.gained(asked, before, curated))
    found = curated.total() | ({"rounds": rounds} if rounds else {})
    counts.check_not_empty(found)
    silent = [shard for shard, parts in curated.verdicts.items() if not parts["verdicts"].rows]
    warnings = counts.find_warnings(found, silent, len(curated.verdicts))
    further = [manifest.fingerprint for manifest in source.captions[1:]]
    return Outcome(curated.store, curated.selected(), found, {"tokenizer": TOKENIZER, "rounds": further}, warnings)


def curate(config: CurateConfig, folder: Location, source: Source) -> Curated:
    """Go through the steps; each finds for itself what is there already."""
    from captioning.curate.corpus.near_duplicates import NearDuplicates
    from captioning.curate.work import Texts, Verdicts

    repeated = NearDuplicates(config.boilerplate)
    settings = [VERSION, _semantic(config, TEXT_SECTIONS), *_external(config).values(), repeated.digest]
    first = Step.at(folder, "texts", settings, config.ray)
    texts = first.run(Texts(source, config), source.caption_digests())
    crowded = repeated.merge(tables(first, texts, repeated.name))

    settings = [VERSION, _semantic(config, set(CurateConfig.model_fields) - TEXT_SECTIONS), sorted(crowded.items())]
    last = Step.at(folder, "verdicts", settings, config.ray)
    images = source.image_digests()
    inputs = {shard: digest([parts["texts"].digest, images[shard]]) for shard, parts in texts.items()}
    judged = {shard: first.folder / parts["texts"].name for shard, parts in texts.items()}
    verdicts = last.run(Verdicts(source, config, judged, crowded), inputs)
    return Curated(texts, verdicts, last.folder.uri)


def tables(step: Step, parts: Mapping[str, Parts], kind: str) -> Iterator[pa.Table]:
    """The tables of one kind that a step made, one at a time, by shard."""
    import pyarrow.parquet as pq

    for shard in sorted(parts):
        with (step.folder / parts[shard][kind].name).open() as handle:
            yield pq.read_table(handle)


def _semantic(config: CurateConfig, sections: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in semantic(config).items() if name in sections}


def _external(config: CurateConfig) -> dict[str, str]:
    return {"phrases": phrases_digest(config.phrases), "unsafe": list_digest(config.unsafe.list)}


STAGE = Stage("curate", VERSION, ("ingest", "caption"), CurateConfig, run, _external)
