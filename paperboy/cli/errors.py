"""What is wrong with a command line, or in the way of a command."""

from paperboy.errors import PaperboyError


class Misuse(PaperboyError):
    """The command was not asked for something that it can do; it has done nothing."""


class LedgerError(PaperboyError):
    """What was replayed cannot be told."""
