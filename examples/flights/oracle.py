"""What must come out: a plain group-by over the source files, and the comparison with what the tables hold."""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

from examples.flights import data
from examples.flights.handlers import Tables
from paperboy import Table


@dataclass(frozen=True)
class Totals:
    """See `Tables` for what each of these is."""

    flights: dict[str, int]
    delays: dict[str, int]
    cancellations: dict[str, int]
    routes: dict[str, dict[str, Any]]

    def differences(self, expected: "Totals") -> list[str]:
        """A line for each total that is not as expected."""
        lines = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(expected, field.name)
            lines += [
                f"{field.name} of {key}: {mine.get(key)} instead of {theirs.get(key)}"
                for key in sorted(mine.keys() | theirs.keys())
                if mine.get(key) != theirs.get(key)
            ]
        return lines


def group_by(limit: int | None = None) -> Totals:
    """The totals of the first `limit` flights, or of all."""
    airlines = {row["carrier"]: row["name"] for row in data.airlines()}
    airports = {row["faa"]: row["name"] for row in data.airports()}
    planes = {row["tailnum"]: int(row["seats"] or 0) for row in data.planes()}
    flights, delays, cancellations = Counter[str](), Counter[str](), Counter[str]()
    routes: dict[str, dict[str, Any]] = {}
    for row in data.flights(limit):
        airline = str(airlines[row["carrier"]])
        flights[airline] += 1
        delays[airline] += max(0, int(row["dep_delay"] or 0))
        cancellations[airline] += row["dep_delay"] is None
        name = f"{row['origin']}-{row['dest']}"
        route = routes.setdefault(name, {"to": airports.get(row["dest"]), "flights": 0, "seats": 0})
        route["flights"] += 1
        route["seats"] += planes.get(row["tailnum"], 0)
    return Totals(dict(flights), dict(delays), dict(cancellations), routes)


def totals_of(tables: Tables) -> Totals:
    """What the tables of a running engine hold, where it holds all their partitions."""
    return Totals(_whole(tables.flights), _whole(tables.delays), _whole(tables.cancellations), _whole(tables.routes))


def _whole(table: Table) -> dict[str, Any]:
    """A table's entries without their partitions. Nothing here is keyed such that a key could stand in two of them.

    Raises:
        ValueError: one does.
    """
    whole: dict[str, Any] = {}
    for partition, key, value in table.snapshot():
        if key in whole:
            raise ValueError(f"{key!r} stands in partition {partition} of table {table.name!r}, and in another.")
        whole[key] = value
    return whole
