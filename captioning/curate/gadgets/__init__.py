"""The gadgets: a file each, with a `GADGET`. A new file is a new gadget, with its section and its reasons."""

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from captioning.curate.gadget import Gadget, Given, Known, Origin, Pass, in_order
from pipeline.config import Section, semantic

GADGETS: tuple[type[Gadget], ...] = in_order(
    import_module(f"{__name__}.{module.name}").GADGET for module in iter_modules(__path__)
)
NOTHING = Known()


def make_gadgets(judges: Pass, config: Section, known: Known = NOTHING) -> tuple[Gadget, ...]:
    """The gadgets of a pass in order. Each is given the settings that it declares, and can read no others."""
    declared = (
        gadget.make(Given({name: getattr(config, name) for name in gadget.made_from}, known))
        for gadget in GADGETS
        if gadget.judges == judges
    )
    return tuple(gadget for gadget in declared if gadget is not None)


def settings_of(judges: Pass, config: Section, only: Collection[str] | None = None) -> dict[str, Any]:
    """The settings that decide what the gadgets of a pass (or those of them named in `only`) do, as plain data."""
    gadgets = [one for one in GADGETS if one.judges == judges and (only is None or one.name in only)]
    names = {name for gadget in gadgets for name in gadget.made_from}
    return {name: value for name, value in semantic(config).items() if name in names}


def judging(origin: Origin) -> tuple[str, ...]:
    """Names of the gadgets that judge texts of this origin unless the settings say otherwise."""
    return tuple(gadget.name for gadget in GADGETS if origin in gadget.origins)


def judging_imported(judges: Pass, config: Any) -> list[str]:
    """Names of the gadgets of a pass that judge imported captions, in order."""
    return [one.name for one in GADGETS if one.judges == judges and one.name in config.imported.gadgets]


def columns(gadgets: Sequence[Gadget]) -> list[str]:
    """The columns of the captions table that these gadgets read."""
    return list(dict.fromkeys(name for gadget in gadgets for name in gadget.reads))


def meanings() -> Mapping[str, str]:
    """What each reason means in plain words."""
    return {reason: meaning for gadget in GADGETS for reason, meaning in gadget.reasons.items()}
