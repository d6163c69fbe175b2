"""What the steps of curation do to one shard. Each is plain data with a call, so that it can be sent anywhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from captioning.curate import alt_texts, counts
from captioning.curate.config import CurateConfig
from captioning.curate.corpus.statistic import Statistic
from captioning.curate.draft import COMPARED, IDENTITY, Draft
from captioning.curate.gadget import Known, run_gadgets
from captioning.curate.gadgets import columns, judging_imported, make_gadgets, settings_of
from captioning.curate.steps.inputs import CurationInput
from captioning.curate.steps.step import Parts, part_name
from pipeline import schemas
from pipeline.commits import CommitLog, Part
from pipeline.config import semantic
from pipeline.identity import bag
from pipeline.storage import Location

ALWAYS = (*IDENTITY, "shard", "text", "perspective", "granularity", "level", "engine")  # for bundles, counts, measures
Judged = Mapping[str, Part]  # the verdicts of the step `texts`, by shard


@dataclass(frozen=True)
class CountWork:
    """Counts statistics: of the raw captions, or of those that are `judged` and still open."""

    source: CurationInput
    config: CurateConfig
    statistics: tuple[Statistic[Any], ...]
    reads: tuple[str, ...] = ()
    judged: Judged | None = None
    texts: Location | None = None  # where `judged` lie

    @property
    def kinds(self) -> tuple[str, ...]:
        """One for each statistic."""
        return tuple(statistic.name for statistic in self.statistics)

    def __call__(self, shard: str, input_digest: str, log: CommitLog) -> Parts:
        """Count a shard."""
        draft = make_draft(self.source, shard, self.reads, self.config.ngram)
        if self.judged is not None and self.texts is not None:
            resume(draft, _verdicts_so_far(self.texts, self.judged[shard]))
        return _commit_counts(log, shard, input_digest, self.statistics, draft)


@dataclass(frozen=True)
class TextsWork:
    """The text gadgets over one shard, and statistics of the cleaned texts.

    `known` are the openers and habits that were learnt.
    """

    source: CurationInput
    config: CurateConfig
    known: Known
    statistics: tuple[Statistic[Any], ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Verdicts so far, and a kind for each statistic."""
        return ("texts", *(statistic.name for statistic in self.statistics))

    def settings(self) -> dict[str, Any]:
        """What of the configuration decides its parts."""
        return {
            **settings_of("texts", self.config),
            **_named(self.config, "ngram"),
            "imported": judging_imported("texts", self.config),
        }

    def __call__(self, shard: str, input_digest: str, log: CommitLog) -> Parts:
        """Judge and clean a shard's texts."""
        started = time.monotonic()
        gadgets = make_gadgets("texts", self.config, self.known)
        draft = make_draft(self.source, shard, columns(gadgets), self.config.ngram)
        reports = run_gadgets(draft, gadgets, self.config.imported.gadgets)
        parts = _commit_counts(log, shard, input_digest, self.statistics, draft)
        verdicts = verdicts_of(draft, shard, log.folder.name)
        parts["texts"] = log.commit(
            part_name("texts", shard, input_digest),
            schemas.encode(verdicts, schemas.VERDICTS),
            rows=len(verdicts),
            seconds=time.monotonic() - started,
            detail={"shard": shard, "counts": counts.of_gadgets(reports)},
        )
        return parts


@dataclass(frozen=True)
class VerdictsWork:
    """The gadgets that need more than a text, over one shard, and its bundles."""

    source: CurationInput
    config: CurateConfig
    judged: Judged
    texts: Location  # where `judged` lie
    known: Known

    kinds = ("verdicts", "bundles")

    def settings(self) -> dict[str, Any]:
        """What of the configuration decides its parts."""
        return {
            **settings_of("images", self.config),
            **_named(self.config, "ngram", "max_compared", "sub_captions"),
            **alt_texts.settings(self.config, self.known),
            "imported": judging_imported("images", self.config),
        }

    def __call__(self, shard: str, input_digest: str, log: CommitLog) -> Parts:
        """Go on where the text gadgets ended."""
        from captioning.curate.bundles.table import make_bundles
        from captioning.curate.bundles.tokens import TOKENIZER, clip_token_counter

        started = time.monotonic()
        images = self.source.images_of(shard)
        config = self.config
        alts = alt_texts.alt_texts(images, config, self.known)
        gadgets = make_gadgets("images", config, replace(self.known, alt_texts=alts.kept))
        draft = make_draft(self.source, shard, columns(gadgets), config.ngram, config.max_compared)
        resume(draft, _verdicts_so_far(self.texts, self.judged[shard]))
        reports = run_gadgets(draft, gadgets, config.imported.gadgets)
        bundles = make_bundles(images, alts.kept, draft, clip_token_counter(), config.sub_captions)
        verdicts = verdicts_of(draft, shard, log.folder.name)
        first = log.commit(
            part_name("verdicts", shard, input_digest),
            schemas.encode(verdicts, schemas.VERDICTS),
            rows=len(verdicts),
            detail={"shard": shard},
        )
        second = log.commit(
            part_name("bundles", shard, input_digest),
            schemas.encode(bundles, schemas.BUNDLES, metadata={"holism.tokenizer": TOKENIZER}),
            rows=len(bundles),
            seconds=time.monotonic() - started,
            content=samples(bundles),
            detail={
                "shard": shard,
                "counts": {**counts.of_shard(draft, bundles), **counts.of_gadgets(reports), **alts.counts},
            },
        )
        return {"verdicts": first, "bundles": second}


def _named(config: CurateConfig, *names: str) -> dict[str, Any]:
    """These settings as plain data."""
    return {name: value for name, value in semantic(config).items() if name in names}


def _verdicts_so_far(folder: Location, part: Part) -> pa.Table:
    return schemas.read(folder / part.name, schemas.VERDICTS, recorded=(part.digest, "curate"))


def samples(bundles: pa.Table) -> str:
    """Identity of what is trained with: pictures and their captions, wherever they lie."""
    names = ("source", "perspective", "granularity", "level", "text", "weight")
    return bag(
        [image, [[caption[name] for name in names] for caption in captions]]
        for image, captions in zip(bundles["image_id"].to_pylist(), bundles["captions"].to_pylist(), strict=True)
    )


def _commit_counts(
    log: CommitLog, shard: str, input_digest: str, statistics: Sequence[Statistic[Any]], draft: Draft
) -> dict[str, Part]:
    parts = {}
    for statistic in statistics:
        table, name = statistic.of_shard(draft), part_name(statistic.name, shard, input_digest)
        parts[statistic.name] = log.commit(name, schemas.parquet(table), rows=len(table), detail={"shard": shard})
    return parts


def make_draft(
    source: CurationInput, shard: str, columns: Sequence[str], ngram: int, compared: int = COMPARED
) -> Draft:
    """A draft of a shard's captions, with the columns that gadgets and bundles read."""
    names = list(dict.fromkeys([*ALWAYS, *columns]))
    captions = source.captions_of(shard, names)
    return Draft({name: captions[name].to_pylist() for name in names}, ngram=ngram, compared=compared)


def resume(draft: Draft, verdicts: pa.Table) -> None:
    """Put a fresh draft where an earlier step left it."""
    draft.resume(*(verdicts[name].to_pylist() for name in ("caption_id", "gadget", "reason", "scores", "clean_text")))


def verdicts_of(draft: Draft, shard: str, curation: str) -> pa.Table:
    """What has been decided about each row."""
    rows: list[dict[str, Any]] = [
        {
            "caption_id": draft.columns["caption_id"][row],
            "shard": shard,
            "key": draft.columns["key"][row],
            "keep": verdict is None,
            "gadget": verdict[0] if verdict else None,
            "reason": str(verdict[1]) if verdict else None,
            "scores": list(draft.scores[row].items()),
            "clean_text": draft.texts[row] if draft.texts[row] != (draft.columns["text"][row] or "") else None,
            "curation": curation,
        }
        for row, verdict in enumerate(draft.verdicts)
    ]
    return schemas.table(schemas.VERDICTS, rows)
