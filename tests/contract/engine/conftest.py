"""Engines are tested on each broker, by one suite."""

import itertools
from collections.abc import Iterator

import pytest

from paperboy.clock import random_id
from tests.contract.engine.kit import Kit

_numbers = itertools.count()


@pytest.fixture(params=["memory", "kafka"])
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    """Topics, an engine and a reader on one of the brokers, under names that nobody else uses."""
    unique = f"{random_id()[:12]}-{next(_numbers)}"
    if request.param == "memory":
        yield Kit(f"memory://{unique}", unique)
    else:
        yield Kit(request.getfixturevalue("kafka_bootstrap"), unique)
