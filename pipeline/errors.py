"""Errors a user can cause, each with a message that says what was found, what was expected and what to do.

The command line prints the message alone; a traceback is for our mistakes, never for the user's.
"""

from pipeline.presentable import presentable


class HolismError(Exception):
    """Base of all errors that a user can put right. Whatever was found, no message shows a secret."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*(presentable(value) if isinstance(value, str) else value for value in arguments))


class ConfigError(HolismError):
    """A configuration file, override or value is wrong."""


class InputError(HolismError):
    """Data handed in from outside (images, tars, URL lists, models) cannot be used."""


class StoreError(HolismError):
    """A store of this workspace is damaged, unreadable or of another version."""


class MissingInputError(HolismError):
    """A stage was asked to run before the stage it reads from."""


class WorkspaceLockedError(HolismError):
    """Another run holds the workspace."""


class EngineError(HolismError):
    """A captioning engine does not start, or does not answer."""


class ScheduleError(HolismError):
    """The cluster cannot provide what a stage asks for."""
