"""Dense evaluation: zero-shot segmentation and the pointing game by patches (`evaluation.dense`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation import dense
from evaluation.benchmarks import Benchmark
from evaluation.comparison import Row, compare
from evaluation.config import DenseMap, EvaluateConfig
from evaluation.dense import Answers, Shown, Way
from evaluation.features import Needs
from evaluation.regions import Regions
from evaluation.task import SERVED, Card, Estimate, Evaluation, Measurement, Subject, summed_up

MEAN_IOU, ACCURACY, POINTING, STRAY = "mean_iou", "pixel_accuracy", "pointing", "pointing_by_another_text"
SAYS = {MEAN_IOU: "mean IoU", POINTING: "hits", STRAY: "hits by another text"}


@dataclass(frozen=True)
class Kept:
    """What the report shows of a task and model: IoU by label of the first map's served vector, and pictures."""

    regions: Regions
    iou_C: np.ndarray
    shown: Sequence[Shown]


class Dense:
    """Which text is nearest to each patch. What it keeps: what is shown, by task."""

    name = "dense"
    notes: Mapping[str, str] = {
        "Segmentation": "The text nearest to a patch, scores of patches scaled to the size of the mask, masks as they "
        "are. Mean IoU is over the pixels of all pictures together, then over labels; its chance are labels drawn at "
        "random. The protocol id says how a picture is seen (whole, or in windows of the model's input), what "
        "background is, and which texts.",
        "Pointing game": "Whether the pixel of highest score for a class in the picture lies in its mask; its chance "
        "is the mask's share of the picture. By another text: the same for a class that the mask lacks. A map "
        "that lights up things whatever is asked hits by both; only the difference is due to the text.",
        "Maps": "patches: patch tokens of the last block, the same for all branches that share projection and blocks. "
        "value attention: the same, where patches of the last block attend by the likeness of their values. attended: "
        "what the last block's attention gives a branch's vector from each patch; the served vector's is the mean.",
    }

    def asks(self, benchmark: Benchmark) -> bool:
        """Whether there are masks."""
        return bool(benchmark.masks)

    def needs(self, benchmark: Benchmark, config: EvaluateConfig) -> Needs:
        """The prompts of all names."""
        if not config.dense_maps:
            return Needs()
        asked = benchmark.spec.segmentation.values()
        return Needs([text for regions in asked for texts in regions.prompts() for text in texts])

    def measure(self, subject: Subject) -> tuple[list[Measurement], dict[str, Kept]]:
        """Mean IoU, pixel accuracy and hits of every map and readout on every task."""
        found, kept = list[Measurement](), dict[str, Kept]()
        for task, answers in dense.ask(subject).items():
            found += self._figures(task, answers, subject.config)
            first = answers.tallies[next(iter(answers.tallies))]
            kept[task] = Kept(answers.regions, first.mean_iou.by_class, answers.shown)
        return found, kept

    def _figures(self, task: str, answers: Answers, config: EvaluateConfig) -> Iterator[Measurement]:
        regions = answers.regions
        for (kind, readout), tally in answers.tallies.items():
            figures: list[tuple[str, str, float, Estimate]] = [
                (MEAN_IOU, regions.protocol, answers.random_iou, tally.mean_iou),
                (ACCURACY, regions.protocol, answers.random_pixels, tally.accuracy),
            ]
            if answers.shares:
                for metric, pointed in ((POINTING, tally.pointing), (STRAY, tally.stray_pointing)):
                    figures.append((metric, regions.pointing_protocol, answers.random_point, pointed))
            for metric, protocol, chance, estimate in figures:
                name = metric_of(metric, kind, config)
                yield Measurement(self.name, f"{kind}_{protocol}", readout, task, name, chance, estimate)

    def summary(self, evaluation: Evaluation) -> dict[str, Any]:
        """Mean IoU and hits of each task."""
        return summed_up(evaluation, self.name, [MEAN_IOU, POINTING])

    def cards(self, group: Sequence[Evaluation], config: EvaluateConfig) -> list[Card]:
        """Mean IoU of the first task."""
        group = with_maps(group)
        return [
            row.card(f"mean IoU of {row.words}, zero-shot segmentation", group)
            for row in self._rows(group, MEAN_IOU, config)[:1]
        ]

    def part(self, group: Sequence[Evaluation], config: EvaluateConfig) -> dict[str, Any]:
        """Both games, all maps and readouts, labels, pictures; what has no maps is named."""
        able = with_maps(group)
        return {
            "runs": [evaluation.encoder for evaluation in able],
            "without": [evaluation.encoder.run for evaluation in group if evaluation not in able],
            "segmentation": self._rows(able, MEAN_IOU, config),
            "pointing": self._rows(able, POINTING, config),
            "maps": [(evaluation.encoder.run, view) for evaluation in able if (view := _by_map(evaluation, config))],
            "labels": list(_labels(able)),
            "pictures": list(_pictures(able)),
        }

    def _rows(self, group: Sequence[Evaluation], metric: str, config: EvaluateConfig) -> list[Row]:
        further = [ACCURACY] if metric == MEAN_IOU else [STRAY]
        return [
            replace(compare(group, (self.name, SERVED, task, metric), further, config), says=SAYS[metric])
            for task in (group[0].benchmark.spec.segmentation if group else ())
            if group[0].find(self.name, SERVED, task, metric)
        ]


def metric_of(metric: str, kind: DenseMap, config: EvaluateConfig) -> str:
    """A metric's name: of the first map that is wanted the plain one, of others with the map."""
    return metric if kind == config.dense_maps[0] else f"{metric}_{kind}"


def with_maps(group: Sequence[Evaluation]) -> list[Evaluation]:
    """The models that have the first of the maps that are wanted."""
    return [evaluation for evaluation in group if any(figure.metric == MEAN_IOU for figure in evaluation.measurements)]


def _by_map(evaluation: Evaluation, config: EvaluateConfig) -> dict[str, Any] | None:
    """Every figure of every map and readout; None where there is one of them."""
    tasks = list(evaluation.benchmark.spec.segmentation)
    asked = [(metric, task) for metric in SAYS for task in tasks]
    rows = dict[Way, list[float | None]]()
    for kind in config.dense_maps:
        names = {metric_of(metric, kind, config): metric for metric in SAYS}
        for figure in evaluation.measurements:
            if figure.task == Dense.name and figure.metric in names:
                row = rows.setdefault((kind, figure.readout), [None] * len(asked))
                row[asked.index((names[figure.metric], figure.query))] = figure.value
    if len(rows) < 2:
        return None
    best = [
        max((value for value in column if value is not None), default=None)
        for column in zip(*rows.values(), strict=True)
    ]
    given = [number for number, value in enumerate(best) if value is not None]
    best = [None if metric == STRAY else value for value, (metric, _) in zip(best, asked, strict=True)]  # no merit
    return {
        "asked": [(SAYS[asked[number][0]], asked[number][1]) for number in given],
        "rows": [(way, [row[number] for number in given]) for way, row in rows.items()],
        "best": [best[number] for number in given],
    }


def _labels(group: Sequence[Evaluation]) -> Iterator[dict[str, Any]]:
    """Per task the labels with the IoU of each model, None where a label is nowhere."""
    for task, regions in (group[0].benchmark.spec.segmentation if group else {}).items():
        iou_RC = [evaluation.shown[Dense.name][task].iou_C for evaluation in group]
        rows = [
            (label, [None if np.isnan(iou_C[place]) else float(iou_C[place]) for iou_C in iou_RC])
            for place, label in enumerate(regions.labels)
        ]
        yield {"task": task, "rows": rows}


def _pictures(group: Sequence[Evaluation]) -> Iterator[dict[str, Any]]:
    """Per task and model the drawn pictures, with a column for each map and readout, and a legend."""
    for task, regions in (group[0].benchmark.spec.segmentation if group else {}).items():
        runs = [(evaluation.encoder.run, evaluation.shown[Dense.name][task].shown) for evaluation in group]
        labels = {label for _, shown in runs for picture in shown for label in picture.labels}
        yield {
            "task": task,
            "legend": dense.legend(regions, labels),
            "runs": [(run, list(shown[0].said), shown) for run, shown in runs],
        }


TASK = Dense()
