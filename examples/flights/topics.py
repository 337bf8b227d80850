"""The names of the job's topics."""

from typing import NamedTuple


class Topics(NamedTuple):
    """All have the same number of partitions."""

    airlines: str
    """Keyed by carrier, as flights are: an airline is where its flights are."""
    airports: str
    """Every airport in every partition: a flight, which is keyed by its carrier, can go to any of them. This stands in
    for a table that is whole in each worker (a GlobalTable), until there is one."""
    planes: str
    """Every plane in every partition, as airports: planes change hands, and a tail number doesn't tell the carrier."""
    flights: str
    """Keyed by carrier."""
    flights_by_route: str
    """Keyed by route, ``JFK-LAX``: filled by the handler of flights, so that all flights of a route meet."""

    @classmethod
    def named(cls, prefix: str = "") -> "Topics":
        names = ("flights-airlines", "flights-airports", "flights-planes", "flights", "flights-by-route")
        return cls(*(prefix + name for name in names))
