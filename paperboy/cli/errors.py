"""What is wrong with a command line."""

from paperboy.errors import PaperboyError


class Misuse(PaperboyError):
    """The command was not asked for something that it can do; it has done nothing."""
