"""The steps of curation in order; each finds for itself what is there already.

habits     which boilerplate openers the captions of this corpus have, and how they end
texts      the text gadgets; counts of repeated sentences and of things
score_histogram   how image-text scores are spread, where a threshold is a quantile
verdicts   the gadgets that need the corpus, the picture or the captions beside; bundles
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.curate import counts
from captioning.curate.config import VERSION, CurateConfig
from captioning.curate.corpus import score_histogram
from captioning.curate.corpus.endings import Endings, Habits
from captioning.curate.corpus.near_duplicates import NearDuplicates
from captioning.curate.corpus.objects import Objects
from captioning.curate.corpus.openers import Openers
from captioning.curate.corpus.score_histogram import ScoreHistogram
from captioning.curate.corpus.statistic import Statistic
from captioning.curate.gadget import Known
from captioning.curate.measures.dual_encoder import LOAD_CHECKPOINT
from captioning.curate.measures.image_text import READS as IMAGE_TEXT_READS
from captioning.curate.measures.image_text import ImageText
from captioning.curate.measures.measured import Measured
from captioning.curate.steps import work
from captioning.curate.steps.inputs import CurationInput
from captioning.curate.steps.spread import Spread
from captioning.curate.steps.step import Parts, Step
from captioning.curate.text_rules.phrases import load_phrases
from pipeline import contents, schemas
from pipeline.commits import Part
from pipeline.identity import digest, union
from pipeline.storage import Location

LISTS = ("phrases", "unsafe")  # what texts are judged by beside the configuration
MODELS = ("scorer", "embedding")
MEASURES = "measures"  # folder


@dataclass(frozen=True)
class Curated:
    """The parts of the steps `texts` and `verdicts` by shard and kind; `store` is the folder of the latter."""

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

    def samples(self, tokenizer: str) -> str:
        """Identity of what training is given: another curation that gives the same trains nothing anew."""
        return digest([tokenizer, union(parts["bundles"].content for parts in self.verdicts.values())])

    def silent(self) -> list[str]:
        """The shards without any caption."""
        return [shard for shard, parts in sorted(self.verdicts.items()) if not parts["verdicts"].rows]

    def bundles(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of the bundles, shard by shard."""
        for shard in sorted(self.verdicts):
            part = self.verdicts[shard]["bundles"]
            place = Location.of(self.store) / part.name
            yield schemas.read(place, schemas.BUNDLES, columns, recorded=(part.digest, "curate"))


@dataclass(frozen=True)
class Curation:
    """Captions of a `source` under a configuration, in the curate stage's `folder`.

    `external` are digests of what the configuration names outside of it (phrases, lists, models), by name.
    """

    config: CurateConfig
    folder: Location
    source: CurationInput
    external: Mapping[str, str]
    services: Mapping[str, Any]
    spread: Spread
    verify: bool = False  # whether parts that are there are read, to find damaged ones

    def run(self) -> Curated:
        """Go through the steps."""
        openers, habits = self._habits()
        statistics = self._statistics()
        counted = [statistic.digest for statistic in statistics]
        learnt = Known(openers=openers, habits=habits)
        judge_texts = work.TextsWork(self.source, self.config, learnt, statistics)
        settings = [judge_texts.settings(), openers, habits.digest, counted]
        texts_step = self._step("texts", settings, LISTS)
        texts = texts_step.run(judge_texts, self.source.caption_digests())
        judged = {shard: parts["texts"] for shard, parts in texts.items()}
        merged = {one.name: one.merge(tables(texts_step, texts, one.name)) for one in statistics}
        inputs = self._inputs(texts)
        known = replace(
            learnt,
            crowded=merged[NearDuplicates.name],
            thresholds=self._thresholds(judged, texts_step.folder, inputs),
            objects=merged.get(Objects.name, ()),
            image_text=self.image_text,
            embed=self.embed,
        )
        judge = work.VerdictsWork(self.source, self.config, judged, texts_step.folder, known)
        judging: list[Any] = [
            judge.settings(), sorted(known.crowded.items()), sorted(known.thresholds.items()),
            digest(known.objects),
        ]  # fmt: skip
        step = self._step("verdicts", judging, (*MODELS, *LISTS) if self.config.alt_text.enabled else MODELS)
        verdicts = step.run(judge, inputs)
        return Curated(texts, verdicts, step.folder.uri)

    @cached_property
    def embed(self) -> Measured | None:
        """Sentence embeddings, if similarity in meaning is asked for."""
        select = self.config.select
        if select.similarity == "lexical":
            return None
        from captioning.curate.measures.embeddings import Embeddings

        return Embeddings(select.embedding, self.external["embedding"], self.folder / MEASURES)

    @cached_property
    def image_text(self) -> ImageText | None:
        """Scores of captions against their pictures, if a model is named."""
        scorer = self.config.ground.scorer
        if scorer is None:
            return None
        load = self.services.get(LOAD_CHECKPOINT)
        return ImageText(scorer, self.external["scorer"], self.source, self.folder / MEASURES, load)

    def _habits(self) -> tuple[tuple[str, ...], Habits]:
        """How the raw captions begin and end: one pass."""
        clean, endings = self.config.clean, Endings(self.config.clean.markup)
        openers = Openers(clean, load_phrases(self.config.phrases).learn)
        learning = (openers, endings) if clean.openers and clean.learn else (endings,)
        counting = work.CountWork(self.source, self.config, learning, endings.reads)
        learnt = self._count("habits", self.source.caption_digests(), counting)
        return learnt.get(openers.name, ()), learnt[endings.name]

    def _statistics(self) -> tuple[Statistic[Any], ...]:
        """What is counted of the cleaned texts."""
        statistics: list[Statistic[Any]] = [self.config.boilerplate.statistic()]
        if self.config.support.enabled:
            statistics.append(Objects(self.config.support.min_images))
        return tuple(statistics)

    def _thresholds(self, judged: work.Judged, texts: Location, inputs: Mapping[str, str]) -> dict[str, float]:
        """The lowest image-text score to keep by perspective; none if nothing is scored."""
        ground = self.config.ground
        if self.image_text is None:
            return {}
        if not score_histogram.needs_histograms(ground):
            return score_histogram.thresholds(ground, {})
        imported = "ground" in self.config.imported.gadgets
        statistic = ScoreHistogram(self.image_text, digest([self.image_text.digest, imported]), imported)
        counting = work.CountWork(self.source, self.config, (statistic,), IMAGE_TEXT_READS, judged, texts)
        return score_histogram.thresholds(ground, self._count(statistic.name, inputs, counting)[statistic.name])

    def _count(self, name: str, inputs: Mapping[str, str], counting: work.CountWork) -> dict[str, Any]:
        """What a step of counting finds, by statistic."""
        step = self._step(name, [[one.name, one.digest] for one in counting.statistics], ())
        parts = step.run(counting, inputs)
        return {one.name: one.merge(tables(step, parts, one.name)) for one in counting.statistics}

    def _inputs(self, texts: Mapping[str, Parts]) -> dict[str, str]:
        """What the steps after the texts make each shard's parts from: verdicts hold no text that stayed as it was."""
        captions = self.source.caption_digests()
        return {shard: digest([parts["texts"].digest, captions[shard]]) for shard, parts in texts.items()}

    def _step(self, name: str, settings: Any, external: Iterable[str]) -> Step:
        named = {key: self.external[key] for key in external if key in self.external}
        return Step.at(self.folder, name, [VERSION, settings, named], self.spread, verify=self.verify)


def tables(step: Step, parts: Mapping[str, Parts], kind: str) -> Iterator[pa.Table]:
    """The tables of one kind that a step made, one at a time, by shard."""
    for shard in sorted(parts):
        part = parts[shard][kind]
        place = step.folder / part.name
        data = place.read()
        contents.check(place, data, part.digest, "curate")
        yield pq.read_table(pa.BufferReader(data))
