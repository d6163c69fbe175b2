"""What a stage would refuse, found before anything is paid for: mistakes that no section shows by itself.

A stage looks at what it reads from outside (`Stage.external`). Here are the rest: names that sections have to agree
on, and what a stage would only find when it has begun.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from captioning import prompts
from captioning.curate.config import perspectives_beyond_defaults
from flows.config import HolismConfig
from pipeline.errors import ConfigError, HolismError
from pipeline.messages import say
from training.config import RunConfig
from training.slots import Slot
from training.towers import unknown_model
from training.weights import pretrained_tag

ALT_TEXT = "alt_text"  # any source of images may have it
PART_GRANULARITIES = ("sentence", "paragraph")  # of sub-captions
Produced = set[tuple[str, str | None]]  # perspective and granularity; None: any


def check(stage: str, config: HolismConfig) -> None:
    """Raise a `HolismError` where the stage could not run to its end."""
    checks = {"caption": _caption, "curate": _curate, "train": _train, "evaluate": _evaluate}
    if stage in checks:
        checks[stage](config)


def _caption(config: HolismConfig) -> None:
    from captioning.engines.choose import require_installed

    if config.caption.models and config.ray.address is None:  # elsewhere it is the cluster's affair
        require_installed(config.caption.engine)


def _curate(config: HolismConfig) -> None:
    scorer = config.curate.ground.scorer
    if scorer is not None and scorer.model is not None and (why := unknown_model(scorer.model)):
        raise ConfigError(f"curate.ground.scorer.model: {why}")
    if (produced := perspectives(config)) is None:
        return
    known = {perspective for perspective, _ in produced} | {ALT_TEXT}
    for setting, names in perspectives_beyond_defaults(config.curate).items():
        for name in names:
            if name not in known:
                raise ConfigError(f"curate.{setting} names {name!r}, which {_nothing_gives(name, known)}")


def _train(config: HolismConfig) -> None:
    produced = perspectives(config)
    for name in config.train.runs:
        recipe = config.train.run(name)
        if produced is not None and "slots" in recipe.model_fields_set:  # the default ones are warned of in training
            _check_slots(recipe.slots, produced)
        if recipe.evaluation.every:
            _check_evaluation(recipe, config)
        tag = pretrained_tag(recipe.warm_start) if recipe.warm_start else None
        if tag is not None:
            from training.pretrained import described

            described(tag, recipe)


def _check_evaluation(recipe: RunConfig, config: HolismConfig) -> None:
    """Whether there is what is to be measured on the way, and among it the figure that decides which model is best."""
    from evaluation.benchmarks import read_all

    folders = recipe.evaluation.benchmarks or config.evaluate.benchmarks
    if not folders:
        raise ConfigError("train.evaluation.every is set, but no benchmark; name some there or in evaluate.benchmarks")
    names = [benchmark.name for benchmark in read_all(folders)]
    if recipe.best and not any(recipe.best.figure.startswith(f"{name.replace('/', '-')}/") for name in names):
        raise ConfigError(
            f"train.best.figure is {recipe.best.figure!r}, but figures begin with the benchmark's name: "
            f"{', '.join(f'{name}/' for name in names)} then one of macro_accuracy, text_to_image_recall@1, …"
        )


def _check_slots(slots: Iterable[Slot], produced: Produced) -> None:
    known = {perspective for perspective, _ in produced} | {ALT_TEXT}
    for slot in slots:
        if slot.perspective not in known:
            raise ConfigError(
                f"train.slots: the slot {slot.name!r} takes captions of the perspective {slot.perspective!r}, which "
                f"{_nothing_gives(slot.perspective, known)}; fix or remove the slot"
            )
        granularities = {granularity for perspective, granularity in produced if perspective == slot.perspective}
        if slot.granularity and slot.perspective != ALT_TEXT and not granularities & {slot.granularity, None}:
            raise ConfigError(
                f"train.slots: the slot {slot.name!r} takes captions of {slot.perspective!r} with granularity "
                f"{slot.granularity!r}, but those have {', '.join(sorted(map(str, granularities)))}; "
                "fix or remove the slot"
            )


def _evaluate(config: HolismConfig) -> None:
    from evaluation.benchmarks import check_all

    branches = {branch for name in config.train.runs for branch in config.train.run(name).branch_names}
    if config.evaluate.runs and (taken := sorted(set(config.evaluate.models) & set(config.train.runs))):
        raise ConfigError(f"evaluate.models: a run of train is called {taken[0]!r}; give the model another name")
    for readout in config.evaluate.readouts:
        if config.evaluate.models:  # their branches are known once they are loaded
            break
        if readout.startswith("branch:") and readout.removeprefix("branch:") not in branches:
            raise ConfigError(
                f"evaluate.readouts names {readout!r}, but the runs' branches are {', '.join(sorted(branches))}"
            )
    for lacking in check_all(config.evaluate.benchmarks)[1]:
        say(f"evaluate: {lacking}")
    if (weights := config.evaluate.weights) != "last":
        for name in config.train.runs:
            if getattr(config.train.run(name), weights) is None:
                raise ConfigError(
                    f"evaluate.weights is {weights}, but run {name} keeps no {weights} model; set train.{weights}"
                )


def perspectives(config: HolismConfig) -> Produced | None:
    """What captions this configuration gives; None where that is not known: columns of tables can hold any."""
    caption, produced = config.caption, Produced()
    for table in caption.tables:
        if table.columns.perspective is not None or table.perspective is None:
            return None
        produced.add((table.perspective, None if table.columns.granularity is not None else table.granularity))
    if caption.models:
        try:
            known = prompts.load(caption.prompts.set)
            chosen = known.select(caption.prompts.only)
        except HolismError:  # which the caption stage says
            return None
        asked = [known.get(name) for prompt in chosen for name in prompt.answers or (prompt.id,)]
        produced |= {(prompt.perspective, prompt.granularity) for prompt in [*chosen, *asked]}
    if config.curate.sub_captions.enabled:
        produced |= {(perspective, part) for perspective, _ in produced for part in PART_GRANULARITIES}
    return produced


def _nothing_gives(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"no prompt or table of this configuration gives; {hint}there are {', '.join(sorted(known))}"
