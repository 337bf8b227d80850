"""Retry, DeadLetter and CircuitBreaker as they are declared: what they say, what is refused, and whose word counts."""

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy import BulkError, CircuitBreaker, DeadLetter, Engine, Exponential, Handler, Retry
from paperboy.errors import (
    BrokerError,
    ConfigurationError,
    DeserializationError,
    HandlerTimeout,
    RecordTooLarge,
    SerializationError,
)
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.error_policy import ErrorPolicy

# How long it waits.


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Exponential("1s", factor=2, maximum="10s", jitter=0), [1, 2, 4, 8, 10, 10]),
        (Exponential("1s", factor=1, jitter=0), [1, 1, 1]),
        (Exponential(0.5, factor=3, maximum="1m", jitter=0), [0.5, 1.5, 4.5]),
        (Exponential(timedelta(seconds=5), maximum="2s", jitter=0), [2, 2]),
        (Exponential(0, jitter=0), [0, 0]),
        (Exponential(jitter=0), [0.1, 0.2, 0.4]),
    ],
)
def test_waits_grow_up_to_their_maximum(backoff: Exponential, waits: list[float]) -> None:
    assert [backoff.delay_sec(number, 0.0) for number in range(1, len(waits) + 1)] == pytest.approx(waits)


@given(
    base=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    maximum=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    attempts=st.integers(1, 10**6),
    chance=st.floats(0, 1),
)
def test_no_wait_is_below_its_jitter_above_its_maximum_or_shorter_than_the_one_before(
    base: float, factor: float, maximum: float, jitter: float, attempts: int, chance: float
) -> None:
    backoff = Exponential(base, factor=factor, maximum=maximum, jitter=jitter)
    full = backoff.delay_sec(attempts, 0.0)
    assert 0 <= full <= maximum
    assert full <= backoff.delay_sec(attempts + 1, 0.0)
    assert full * (1 - jitter) <= backoff.delay_sec(attempts, chance) <= full


@given(attempts=st.integers(1, 10**9))
def test_who_waits_for_nothing_never_begins_to_wait(attempts: int) -> None:
    assert Exponential(0, factor=10).delay_sec(attempts, 0.0) == 0


# Which errors are tried again, and how often.


class Away(ConnectionError):
    pass


@pytest.mark.parametrize(
    ("retry", "error", "helps"),
    [
        (Retry(), ValueError(), True),
        (Retry(), HandlerTimeout("…", "t", 0, 0), True),
        (Retry(), BrokerError(), True),
        (Retry(), DeserializationError(), False),
        (Retry(), SerializationError(), False),
        (Retry(), RecordTooLarge(), False),
        (Retry(retry_on=(Exception,)), DeserializationError(), False),
        (Retry(retry_on=ConnectionError), Away(), True),
        (Retry(retry_on=(ConnectionError, TimeoutError)), ValueError(), False),
        (Retry(retry_on=()), ValueError(), False),
        (Retry(fatal=ValueError), ValueError(), False),
        (Retry(fatal=(ValueError,)), KeyError(), True),
        (Retry(retry_on=ConnectionError, fatal=Away), Away(), False),
        (Retry(retry_on=ConnectionError, fatal=Away), ConnectionError(), True),
    ],
)
def test_what_cannot_get_better_is_not_tried_again(retry: Retry, error: Exception, helps: bool) -> None:
    assert retry.helps(error) is helps
    assert (retry.delay_after(error, 1, 0.0) is not None) is helps


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        (Retry(attempts=3, backoff=Exponential("1s", jitter=0)), [1, 2, None, None]),
        (Retry(attempts=1), [None]),
        (Retry(backoff=Exponential("1s", factor=1, jitter=0)), [1, 1, 1, 1, None]),
        (Retry(delays=["10s", "1m"]), [10, 60, None, None]),
        (Retry(delays=["10s", "1m"], via="topics"), [10, 60, None]),
    ],
)
def test_a_message_is_given_up_after_its_attempts(retry: Retry, waits: list[float | None]) -> None:
    assert [retry.delay_after(ValueError(), number, 0.0) for number in range(1, len(waits) + 1)] == waits


@given(attempts=st.integers(1, 10**9))
def test_attempts_without_end_have_none(attempts: int) -> None:
    delay = Retry(attempts=math.inf).delay_after(ValueError(), attempts, 0.5)
    assert delay is not None
    assert 0 < delay <= 30


def test_a_breaker_counts_what_it_is_told_and_never_what_is_the_messages_own_fault() -> None:
    breaker = CircuitBreaker(on=(ConnectionError,))
    assert breaker.counts(Away())
    assert not breaker.counts(ValueError())
    every = CircuitBreaker()
    assert every.counts(ValueError())
    assert not any(every.counts(error) for error in (DeserializationError(), SerializationError(), RecordTooLarge()))


# What is refused.


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        (Exponential, {"base": "soon"}, "'soon' is no duration"),
        (Exponential, {"base": -1}, "-1 is no duration"),
        (Exponential, {"maximum": "later"}, "'later' is no duration"),
        (Exponential, {"factor": 0.5}, "Exponential factor=0.5 must be a number from 1 on."),
        (Exponential, {"factor": math.inf}, "Exponential factor=inf must be a number from 1 on."),
        (Exponential, {"factor": math.nan}, "Exponential factor=nan must be a number from 1 on."),
        (Exponential, {"factor": "2"}, "Exponential factor='2' must be a number from 1 on."),
        (Exponential, {"jitter": 1.5}, "Exponential jitter=1.5 must be a number from 0 to 1."),
        (Exponential, {"jitter": True}, "Exponential jitter=True must be a number from 0 to 1."),
        (Retry, {"attempts": 0}, "Retry attempts=0 must be a whole number above 0, or math.inf."),
        (Retry, {"attempts": 2.5}, "Retry attempts=2.5 must be a whole number above 0, or math.inf."),
        (Retry, {"attempts": True}, "Retry attempts=True must be a whole number above 0, or math.inf."),
        (Retry, {"attempts": math.nan}, "Retry attempts=nan must be a whole number above 0, or math.inf."),
        (Retry, {"backoff": "1s"}, "Retry backoff='1s' must be Exponential(…)."),
        (Retry, {"delays": "10s"}, "Retry delays='10s' must be a list, as in ['10s', '1m']."),
        (Retry, {"delays": 10}, "Retry delays=10 must be a list, as in ['10s', '1m']."),
        (Retry, {"delays": ["10s", 0]}, "Retry delays=['10s', 0]: a delay must be above 0."),
        (Retry, {"delays": ["x"]}, "'x' is no duration"),
        (Retry, {"retry_on": "ValueError"}, "Retry retry_on='ValueError' must be exception classes"),
        (Retry, {"retry_on": [ValueError]}, "must be exception classes, as in (TimeoutError,)."),
        (Retry, {"retry_on": (KeyboardInterrupt,)}, "must be exception classes"),
        (Retry, {"fatal": ValueError()}, "Retry fatal=ValueError() must be exception classes"),
        (Retry, {"via": "mail"}, "Retry via='mail' is not one of 'waiting', 'topics'."),
        (Retry, {"attempts": 3, "delays": ["1s"]}, "Retry takes attempts=… or delays=…, and not both"),
        (Retry, {"via": "topics"}, "Retry via='topics' needs delays=[…]: there is a topic for each."),
        (DeadLetter, {"topic": ""}, "DeadLetter topic='' must be a topic's name."),
        (DeadLetter, {"topic": 7}, "DeadLetter topic=7 must be a topic's name."),
        (DeadLetter, {"unwritable": "drop"}, "DeadLetter unwritable='drop' is not one of 'stop', 'wait'."),
        (DeadLetter, {"config": "none"}, "DeadLetter config='none' must be a dict of topic settings."),
        (CircuitBreaker, {"failures": 0}, "CircuitBreaker failures=0 must be a whole number above 0."),
        (CircuitBreaker, {"failures": 1.5}, "CircuitBreaker failures=1.5 must be a whole number above 0."),
        (CircuitBreaker, {"failures": 2.0}, "CircuitBreaker failures=2.0 must be a whole number above 0."),
        (CircuitBreaker, {"failures": math.inf}, "CircuitBreaker failures=inf must be a whole number above 0."),
        (CircuitBreaker, {"failures": math.nan}, "CircuitBreaker failures=nan must be a whole number above 0."),
        (CircuitBreaker, {"failures": True}, "CircuitBreaker failures=True must be a whole number above 0."),
        (CircuitBreaker, {"within": 0}, "CircuitBreaker within=0 must be above 0."),
        (CircuitBreaker, {"pause": "0s"}, "CircuitBreaker pause='0s' must be above 0."),
        (CircuitBreaker, {"on": Exception()}, "CircuitBreaker on=Exception() must be exception classes"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(kind: Any, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        kind(**settings)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["retry", "dead_letter", "circuit_breaker"])
@pytest.mark.parametrize("wrong", [True, 3, "yes", Retry, DeadLetter, CircuitBreaker])
def test_a_handler_that_declares_something_else_is_refused(name: str, wrong: Any) -> None:
    kind = {"retry": "Retry", "dead_letter": "DeadLetter", "circuit_breaker": "CircuitBreaker"}[name]
    wanted = rf"Failing\.{name} is .*: it must be {kind}\(…\), or False for none\."
    with pytest.raises(ConfigurationError, match=wanted):
        Dispatch(failing(**{name: wrong}), fail_on_exception=True)


@pytest.mark.parametrize("name", ["retry", "dead_letter", "circuit_breaker"])
def test_an_engine_that_declares_something_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}=3 must be \w+\(…\)\."):
        Engine(failing(), bootstrap_servers="memory://", group_id="g", **{name: 3})


def test_two_topics_of_which_one_is_where_messages_of_the_other_wait_are_refused() -> None:
    waiting = failing(retry=Retry(delays=["1m"], via="topics"))
    other = failing(topic="g-in-retry-1m")
    with pytest.raises(ConfigurationError, match="'g-in-retry-1m' is where messages of 'in' wait to be handled again"):
        Engine(waiting, other, bootstrap_servers="memory://", group_id="g")


# Whose word counts.


def failing(**body: Any) -> type[Handler]:
    return type("Failing", (Handler,), {"topic": "in", **body})


OWN_RETRY, ENGINES_RETRY = Retry(attempts=2), Retry(attempts=9)
OWN_DEAD, ENGINES_DEAD = DeadLetter(topic="own"), DeadLetter(topic="engines")


@pytest.mark.parametrize(
    ("own", "engines", "policy"),
    [
        ({}, {}, ErrorPolicy(None, None, True)),
        ({}, {"stops": False}, ErrorPolicy(None, None, False)),
        ({}, {"retry": ENGINES_RETRY, "dead": ENGINES_DEAD}, ErrorPolicy(ENGINES_RETRY, ENGINES_DEAD, True)),
        ({"retry": OWN_RETRY}, {"retry": ENGINES_RETRY}, ErrorPolicy(OWN_RETRY, None, True)),
        ({"retry": False}, {"retry": ENGINES_RETRY, "dead": ENGINES_DEAD}, ErrorPolicy(None, ENGINES_DEAD, True)),
        ({"dead_letter": OWN_DEAD}, {"dead": ENGINES_DEAD}, ErrorPolicy(None, OWN_DEAD, True)),
        ({"dead_letter": False}, {"dead": ENGINES_DEAD}, ErrorPolicy(None, None, True)),
        ({"dead_letter": False}, {"dead": ENGINES_DEAD, "stops": False}, ErrorPolicy(None, None, False)),
        ({"fail_on_exception": True}, {"dead": ENGINES_DEAD, "stops": False}, ErrorPolicy(None, None, True)),
        ({"fail_on_exception": False}, {"dead": ENGINES_DEAD}, ErrorPolicy(None, None, False)),
        (
            {"fail_on_exception": False, "dead_letter": OWN_DEAD},
            {"dead": ENGINES_DEAD},
            ErrorPolicy(None, OWN_DEAD, False),
        ),
        ({"fail_on_exception": False}, {"retry": ENGINES_RETRY}, ErrorPolicy(ENGINES_RETRY, None, False)),
    ],
)
def test_what_a_handler_says_goes_over_what_its_engine_says(
    own: dict[str, Any], engines: dict[str, Any], policy: ErrorPolicy
) -> None:
    dispatch = Dispatch(
        failing(**own),
        fail_on_exception=engines.get("stops", True),
        retry=engines.get("retry"),
        dead_letter=engines.get("dead"),
    )
    assert dispatch.policy == policy


def test_a_handler_may_do_without_the_breaker_of_its_engine() -> None:
    engines = CircuitBreaker()
    assert Dispatch(failing(), fail_on_exception=True).breaker is None
    assert Dispatch(failing(), fail_on_exception=True, circuit_breaker=engines).breaker is not None
    assert Dispatch(failing(circuit_breaker=False), fail_on_exception=True, circuit_breaker=engines).breaker is None


def test_topics_of_one_handler_share_its_breaker_with_those_of_their_retries() -> None:
    dispatch = Dispatch(failing(topic=["a", "b"], circuit_breaker=CircuitBreaker(), dead_letter=DeadLetter()),
                        fail_on_exception=True)  # fmt: skip
    assert {each.breaker for each in dispatch.for_retries("g", "a")} == {dispatch.breaker}


@pytest.mark.parametrize(
    ("body", "topics"),
    [
        ({}, {}),
        ({"retry": Retry(delays=["1m"])}, {}),
        ({"dead_letter": DeadLetter()}, {"g-in-retry": 0}),
        ({"retry": Retry(delays=["1m", "10s"], via="topics")}, {"g-in-retry-10s": 10, "g-in-retry-1m": 60}),
        ({"retry": Retry(delays=["1m", 60, timedelta(minutes=1)], via="topics")}, {"g-in-retry-1m": 60}),
        (
            {"retry": Retry(delays=["90m"], via="topics"), "dead_letter": DeadLetter()},
            {"g-in-retry": 0, "g-in-retry-90m": 5400},
        ),
    ],
)
def test_there_is_a_retry_topic_for_each_delay_and_one_for_replays(
    body: dict[str, Any], topics: dict[str, float]
) -> None:
    dispatch = Dispatch(failing(**body), fail_on_exception=True)
    again = dispatch.for_retries("g", "in")
    assert {each.topics[0]: each.delay_sec for each in again} == topics
    assert {each.retries_of for each in again} <= {"in"}
    assert not any(each.takes_bulks for each in again)


def test_a_bulk_error_says_which_and_why() -> None:
    error = BulkError(3, ValueError("no"))
    assert (error.index, repr(error.cause)) == (3, "ValueError('no')")
    assert str(error) == "Message 3 of a bulk failed: ValueError('no')"
