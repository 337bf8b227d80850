"""What the job keeps in tables, and what it does with each message."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from examples.flights.topics import Topics
from paperboy import BulkHandler, Context, Handler, Message, Table


class Tables:
    """The tables of one job."""

    def __init__(self) -> None:
        # What flights look up.
        self.airlines = Table("airlines")
        """Carrier to the airline's name."""
        self.airports = Table("airports")
        """An airport's code to its name."""
        self.planes = Table("planes")
        """Tail number to seats."""

        # What flights add up to.
        self.flights = Table("flights")
        """The airline's name to the number of its flights."""
        self.delays = Table("delays")
        """The airline's name to the minutes by which its flights left late, all together."""
        self.cancellations = Table("cancellations")
        """The airline's name to how many of its flights never left."""
        self.routes = Table("routes")
        """Route (``JFK-LAX``) to where it goes ("to"), its "flights", and the "seats" on them."""

        self.known = (self.airlines, self.airports, self.planes)
        self.by_airline = (self.flights, self.delays, self.cancellations)


def kept(of: str, table: Table, column: str) -> type[Handler]:
    """Keeps one column of a topic's rows in a table, under the rows' keys."""

    class Kept(Handler):
        topic = of
        tables = (table,)
        key_serializer = bytes.decode
        value_serializer = json.loads

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            table[msg.key] = msg.value[column]

        @classmethod
        async def on_tombstone(cls, msg: Message, ctx: Context) -> None:
            table.delete(msg.key)

    return Kept


def totals_by_airline(topics: Topics, t: Tables) -> type[BulkHandler]:
    """Adds flights up per airline, and sends each on to the topic that is keyed by route.

    A bulk does what its messages would do one after another, with one read and one write per airline.
    """

    class TotalsByAirline(BulkHandler):
        topic = topics.flights
        tables = (*t.known, *t.by_airline)
        value_serializer = json.loads

        @classmethod
        async def on_message(cls, msg: Message, ctx: Context) -> None:
            flight = msg.value
            airline = t.airlines[flight["carrier"]]
            t.flights.update(airline, lambda flights: flights + 1, 0)
            t.delays.update(airline, lambda minutes: minutes + delay_of(flight), 0)
            t.cancellations.update(airline, lambda cancelled: cancelled + is_cancelled(flight), 0)
            send_on(ctx, flight, t.airports.get(flight["dest"]), t.planes.get(flight["tailnum"]))

        @classmethod
        async def on_bulk(cls, msgs: list[Message], ctx: Context) -> None:
            bulk = [msg.value for msg in msgs]
            airlines = found(t.airlines, (flight["carrier"] for flight in bulk))
            airports = found(t.airports, (flight["dest"] for flight in bulk))
            planes = found(t.planes, (flight["tailnum"] for flight in bulk))
            flights, delays, cancellations = Counter[str](), Counter[str](), Counter[str]()
            for flight in bulk:
                airline = airlines[flight["carrier"]]
                flights[airline] += 1
                delays[airline] += delay_of(flight)
                cancellations[airline] += is_cancelled(flight)
                send_on(ctx, flight, airports[flight["dest"]], planes[flight["tailnum"]])
            add(t.flights, flights)
            add(t.delays, delays)
            add(t.cancellations, cancellations)

    def send_on(ctx: Context, flight: Any, airport: str | None, seats: str | None) -> None:
        """Equal keys meet in one partition, and what is sent is undone with the message, as table writes are."""
        route = f"{flight['origin']}-{flight['dest']}"
        value = {"to": airport, "seats": int(seats or 0)}
        ctx.send(topics.flights_by_route, json.dumps(value).encode(), key=route.encode())

    return TotalsByAirline


def totals_by_route(topics: Topics, t: Tables) -> type[BulkHandler]:
    """Adds flights up per route. It has tables of its own: its topic need not be partitioned as flights are.

    Without an ``on_message`` it is given bulks of one where messages come one by one.
    """

    class TotalsByRoute(BulkHandler):
        topic = topics.flights_by_route
        tables = (t.routes,)
        key_serializer = bytes.decode
        value_serializer = json.loads

        @classmethod
        async def on_bulk(cls, msgs: list[Message], ctx: Context) -> None:
            routes = found(t.routes, (msg.key for msg in msgs))
            for msg in msgs:
                total = routes[msg.key] or {"flights": 0, "seats": 0}
                routes[msg.key] = {
                    "to": msg.value["to"],
                    "flights": total["flights"] + 1,
                    "seats": total["seats"] + msg.value["seats"],
                }
            t.routes.set_many(routes)

    return TotalsByRoute


def delay_of(flight: Mapping[str, str | None]) -> int:
    """The minutes by which a flight left late: 0 for one that was early, or cancelled."""
    return max(0, int(flight["dep_delay"] or 0))


def is_cancelled(flight: Mapping[str, str | None]) -> bool:
    return flight["dep_delay"] is None


def found(table: Table, keys: Iterable[Any]) -> dict[Any, Any]:
    """Each of these keys with what the table has for it, or None."""
    distinct = list(dict.fromkeys(keys))
    return dict(zip(distinct, table.get_many(distinct), strict=True))


def add(table: Table, counts: Counter[str]) -> None:
    """Add to the table's totals."""
    before = table.get_many(list(counts), 0)
    table.set_many({key: total + counts[key] for key, total in zip(counts, before, strict=True)})
