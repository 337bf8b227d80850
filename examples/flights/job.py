"""The job: topics, tables and handlers, put together."""

from typing import Any, Literal

from examples.flights.handlers import Tables, kept, totals_by_airline, totals_by_route
from examples.flights.topics import Topics
from paperboy import Engine, Table

Mode = Literal["bulk", "single", "step"]
"""How flights are handled: many at once while many are waiting, always one after another, or all flights before the
first route."""


class Flights:
    """Totals of flights by airline and by route, while they come in.

    Airlines and airports are read first, then planes, then the flights that look them up.

    Args:
        prefix: what the names of the job's topics and of its group begin with.
    """

    def __init__(self, prefix: str = "") -> None:
        self.group_id = f"{prefix}flights"
        self.topics = Topics.named(prefix)
        self.tables = Tables()
        self._airlines = kept(self.topics.airlines, self.tables.airlines, "name")
        self._airports = kept(self.topics.airports, self.tables.airports, "name")
        self._planes = kept(self.topics.planes, self.tables.planes, "seats")
        self._flights = totals_by_airline(self.topics, self.tables)
        self._routes = totals_by_route(self.topics, self.tables)

    def engine(self, bootstrap_servers: str, mode: Mode = "bulk", **options: Any) -> Engine:
        """An engine that does the job.

        Args:
            bootstrap_servers: ``host:port``, or ``memory://name``.
            mode: see `Mode`.
            options: further options of the engine.
        """
        steps = [[self._airlines, self._airports], [self._planes]]
        if mode == "step":
            steps += [[self._flights], [self._routes]]
        engine = Engine(
            self._airlines,
            self._airports,
            self._planes,
            self._flights,
            self._routes,
            bootstrap_servers=bootstrap_servers,
            group_id=self.group_id,
            steps=steps,
            with_bulk_mode=mode != "single",
            **options,
        )
        for table in self.all_tables():
            engine.register_table(table)
        return engine

    def all_tables(self) -> list[Table]:
        return [*self.tables.known, *self.tables.by_airline, self.tables.routes]
