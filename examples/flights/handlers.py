"""The job: what is kept, and what is done with each message."""

import json
from collections import Counter
from typing import Any

from examples.flights.topics import Topics
from paperboy import BulkHandler, Context, Engine, Handler, Table
from paperboy.handlers.handler import Message


class Flights:
    """Totals of the flights per airline and per route.

    Airlines and airports are read first, then planes, then flights, which look all of them up.

    Args:
        prefix: what the names of topics and group begin with.
    """

    def __init__(self, prefix: str = "") -> None:
        self.topics = topics = Topics.named(prefix)
        self.group_id = f"{prefix}flights"

        self.airlines = Table("airlines")
        """Carrier to the airline's name."""
        self.airports = Table("airports")
        """The airport's code to its name."""
        self.planes = Table("planes")
        """Tail number to seats."""

        self.flights = Table("flights")
        """The airline's name to its flights: here and below, how many."""
        self.delays = Table("delays")
        """The airline's name to the flights that left late and their minutes of delay."""
        self.cancellations = Table("cancellations")
        """The airline's name to the flights that never left."""
        self.routes = Table("routes")
        """Route to its flights, and the seats on them."""

        self.on_airlines = kept(topics.airlines, self.airlines, "name")
        self.on_airports = kept(topics.airports, self.airports, "name")
        self.on_planes = kept(topics.planes, self.planes, "seats")
        self.on_flights = totals_by_airline(self)
        self.on_flights_by_route = totals_by_route(self)

    def engine(self, bootstrap_servers: str, mode: str = "bulk", **options: Any) -> Engine:
        """An engine that does the job.

        Args:
            mode: how flights are taken: ``bulk`` (many at once while there are many), ``single`` (one after another),
                or ``step`` (all flights first, then all routes).
            options: further options of the engine.
        """
        steps = [[self.on_airlines, self.on_airports], [self.on_planes]]
        if mode == "step":
            steps += [[self.on_flights], [self.on_flights_by_route]]
        handlers = (self.on_airlines, self.on_airports, self.on_planes, self.on_flights, self.on_flights_by_route)
        given = {"group_id": self.group_id, "steps": steps, "with_bulk_mode": mode != "single", **options}
        engine = Engine(*handlers, bootstrap_servers=bootstrap_servers, **given)
        for table in (*self.known, *self.totals, self.routes):
            engine.register_table(table)
        return engine

    @property
    def known(self) -> list[Table]:
        """What flights look up."""
        return [self.airlines, self.airports, self.planes]

    @property
    def totals(self) -> list[Table]:
        """What flights add up to."""
        return [self.flights, self.delays, self.cancellations]


def kept(of: str, table: Table, column: str) -> type[Handler]:
    """A handler that keeps one column of a topic's rows in a table, under their keys."""

    class Kept(Handler):
        topic = of
        tables = [table]
        key_serializer = bytes.decode
        value_serializer = json.loads

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            table[msg.key] = msg.value[column]

        @classmethod
        async def on_tombstone(cls, msg: Message, ctx: Context) -> None:
            table.delete(msg.key)

    return Kept


def totals_by_airline(job: Flights) -> type[BulkHandler]:
    """Adds flights up per airline, and passes each on to the topic that is keyed by route."""

    class TotalsByAirline(BulkHandler):
        topic = job.topics.flights
        tables = [*job.known, *job.totals]
        value_serializer = json.loads

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            flight = msg.value
            airline = job.airlines[flight["carrier"]]
            job.flights.update(airline, lambda flights: flights + 1, 0)
            if flight["dep_delay"] is None:
                job.cancellations.update(airline, lambda cancelled: cancelled + 1, 0)
            elif (minutes := int(flight["dep_delay"])) > 0:
                job.delays.update(airline, lambda delays: (delays[0] + 1, delays[1] + minutes), (0, 0))
            send_on(flight, job.planes.get(flight["tailnum"]), ctx)

        @classmethod
        async def on_bulk(cls, msgs: list[Message], ctx: Context) -> None:
            # The same, with one read and one write for all flights of an airline.
            flights, cancelled, late, minutes = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
            ...

    def send_on(flight: Any, seats: str | None, ctx: Context) -> None:
        ...

    return TotalsByAirline
