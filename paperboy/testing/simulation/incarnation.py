"""One life of a worker."""

from paperboy.testing.loop import Process


class Incarnation(Process):
    """The process of a worker from its start to its end, and what the simulation knows of it."""

    def __init__(self, machine: int, number: int) -> None:
        super().__init__()
        self.machine = machine
        self.name = f"w{machine}.{number}"
        self.assignments = 0
        """How often the group has given it something, or nothing."""
        self.may_repeat = False
        """Whether it may count records twice in this assignment: one of its stores has failed, and the changelog is
        believed; or a commit has, and the store is ahead of what is committed."""
        self.confirmed_at = -1.0
        """When the group last told it that it is the owner, in loop time."""
        self.stood_still = False
        """Whether it was frozen since."""
