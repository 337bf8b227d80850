"""The topics for messages that fail: as they are created, what is refused of those that exist, what is missing."""

from collections.abc import Mapping
from typing import Any

import pytest

from paperboy import DeadLetter, Engine, Handler, Retry, Table
from paperboy.brokers.memory import memory_cluster
from paperboy.brokers.protocol import TopicDescription, TopicSpec
from paperboy.engine.failure_topics import (
    check_dead_letter_topics,
    check_retry_topics,
    dead_letter_specs,
    failure_topic_names,
    retry_specs,
)
from paperboy.engine.options import Options
from paperboy.engine.registration import dispatches_of
from paperboy.errors import ConfigurationError
from paperboy.handlers.dispatch import Dispatch

DELAYS = Retry(delays=["10s", "1m"], via="topics")


def handler(*topics: str, **body: Any) -> type[Handler]:
    return type("Failing", (Handler,), {"topic": topics, **body})


def dispatches(*handlers: type[Handler], **options: Any) -> Mapping[str, Dispatch]:
    return dispatches_of(handlers, Options(bootstrap_servers="memory://", group_id="g", **options))


def described(name: str, partitions: int = 1, **config: str) -> TopicDescription:
    settings = {setting.replace("_", "."): value for setting, value in config.items()}
    return TopicDescription(name, partitions, {"max.message.bytes": "1000", **settings})


def test_retry_topics_have_their_sources_partitions_and_keep_messages_a_week_longer_than_these_wait() -> None:
    found = dispatches(handler("in", retry=DELAYS, dead_letter=DeadLetter()))
    specs = retry_specs(found, {"in": described("in", 3)})
    week_ms = 7 * 24 * 3600 * 1000
    assert {name: (spec.partitions, spec.config["retention.ms"]) for name, spec in specs.items()} == {
        "g-in-retry": (3, str(week_ms)),
        "g-in-retry-10s": (3, str(week_ms + 10_000)),
        "g-in-retry-1m": (3, str(week_ms + 60_000)),
    }
    assert {spec.config["cleanup.policy"] for spec in specs.values()} == {"delete"}
    assert {spec.config["max.message.bytes"] for spec in specs.values()} == {str(1000 + 16 * 1024)}


def test_a_dead_letter_topic_keeps_all_for_ever_and_takes_more_than_its_source() -> None:
    found = dispatches(handler("in", dead_letter=DeadLetter()))
    source = described("in", 3, message_timestamp_after_max_ms="5", message_timestamp_before_max_ms="6")
    assert dead_letter_specs(found, {"in": source}) == {
        "in-dlt": TopicSpec(
            "in-dlt",
            3,
            config={
                "cleanup.policy": "delete",
                "retention.ms": "-1",
                "max.message.bytes": str(1000 + 16 * 1024),
                "message.timestamp.after.max.ms": "5",
                "message.timestamp.before.max.ms": "6",
            },
        )
    }


def test_what_is_declared_goes_over_that() -> None:
    found = dispatches(handler("in", dead_letter=DeadLetter(topic="dead", config={"retention.ms": 9, "a": "b"})))
    (spec,) = dead_letter_specs(found, {"in": described("in")}).values()
    assert (spec.name, spec.config["retention.ms"], spec.config["a"]) == ("dead", "9", "b")


@pytest.mark.parametrize(("small", "large"), [("a", "b"), ("b", "a")])
def test_several_topics_may_share_one_which_takes_the_messages_of_each(small: str, large: str) -> None:
    found = dispatches(handler("a", "b"), dead_letter=DeadLetter(topic="dead"))
    sources = {
        small: described(small, 2, message_timestamp_after_max_ms="9"),
        large: described(large, 5, max_message_bytes="7000", message_timestamp_after_max_ms="2"),
    }
    (spec,) = dead_letter_specs(found, sources).values()
    assert (spec.name, spec.partitions) == ("dead", 5)
    assert spec.config["max.message.bytes"] == str(7000 + 16 * 1024)
    assert spec.config["message.timestamp.after.max.ms"] == "9"


@pytest.mark.parametrize(
    "handlers",
    [
        [handler("in", dead_letter=DeadLetter(topic="in"))],
        [handler("in"), handler("in-dlt", dead_letter=DeadLetter(topic="in"))],
        [
            handler("in"),
            handler("in-dlt", dead_letter=DeadLetter(topic="x")),
            handler("x", dead_letter=DeadLetter(topic="in")),
        ],
    ],
)  # fmt: skip
def test_dead_letters_that_come_back_for_ever_are_refused(handlers: list[type[Handler]]) -> None:
    found = dispatches(*handlers, dead_letter=DeadLetter())
    sources = {topic: described(topic) for topic, dispatch in found.items() if dispatch.retries_of is None}
    with pytest.raises(
        ConfigurationError, match=r"Dead letters of topic '.*' go to '.*' and come back to it.*dead_let"
    ):
        dead_letter_specs(found, sources)


def test_a_handler_may_read_dead_letters_that_go_elsewhere_or_nowhere() -> None:
    found = dispatches(
        handler("in"), handler("in-dlt"), handler("in-dlt-dlt", dead_letter=False), dead_letter=DeadLetter()
    )
    sources = {topic: described(topic) for topic, dispatch in found.items() if dispatch.retries_of is None}
    assert sorted(dead_letter_specs(found, sources)) == ["in-dlt", "in-dlt-dlt"]


def test_a_retry_topic_that_deletes_messages_before_they_are_due_is_refused() -> None:
    found = dispatches(handler("in", retry=DELAYS))
    specs = retry_specs(found, {"in": described("in")}).values()

    def keeping(retention_ms: int) -> Mapping[str, TopicDescription]:
        return {spec.name: described(spec.name, retention_ms=str(retention_ms)) for spec in specs}

    for fine in (-1, 60_001):
        check_retry_topics(specs, keeping(fine))
    with pytest.raises(
        ConfigurationError, match=r"'g-in-retry-1m' has retention\.ms=60000, .* wait in it for 60000 ms.*to 604860000"
    ):
        check_retry_topics(specs, keeping(60_000))


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact"])
@pytest.mark.parametrize("check", [check_retry_topics, check_dead_letter_topics])
def test_a_topic_that_is_compacted_is_refused(check: Any, policy: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"topic 't' has cleanup.policy='{policy}', with which messages of"):
        check([TopicSpec("t", 1)], {"t": described("t", cleanup_policy=policy)})


@pytest.mark.parametrize(
    ("check", "partitions", "is_right"),
    [
        (check_retry_topics, 1, False),
        (check_retry_topics, 2, True),
        (check_retry_topics, 3, False),
        (check_dead_letter_topics, 1, False),
        (check_dead_letter_topics, 2, True),
        (check_dead_letter_topics, 3, True),
    ],
)
def test_the_partition_of_a_message_has_to_be_there(check: Any, partitions: int, is_right: bool) -> None:
    found = {"t": described("t", partitions)}
    if is_right:
        check([TopicSpec("t", 2)], found)
        return
    with pytest.raises(ConfigurationError, match=rf"'t' has {partitions} partitions, but its source has 2, and a mess"):
        check([TopicSpec("t", 2)], found)


def test_what_does_not_exist_is_not_refused() -> None:
    check_retry_topics([TopicSpec("t", 2)], {})
    check_dead_letter_topics([TopicSpec("t", 2)], {})


def test_all_of_them_are_known_by_name_before_anything_is_known_of_their_sources() -> None:
    found = dispatches(handler("in", retry=DELAYS), handler("b", dead_letter=DeadLetter(topic="dead")), handler("c"))
    assert failure_topic_names(found) == ["dead", "g-b-retry", "g-in-retry-10s", "g-in-retry-1m"]


# Starts.


def refused(name: str, *topics: tuple[str, int], tables: tuple[Table, ...] = (), **options: Any) -> Engine:
    memory_cluster(name).create_topics([TopicSpec(topic, partitions) for topic, partitions in topics])
    engine = Engine(
        handler("in", retry=Retry(delays=["10s"], via="topics"), dead_letter=DeadLetter()),
        bootstrap_servers=f"memory://{name}", group_id="g", **options,
    )  # fmt: skip
    for table in tables:
        engine.register_table(table)
    return engine


MISSING = [
    "'g-in-retry' (2 partitions, cleanup.policy=delete, max.message.bytes=1064972, retention.ms=604800000)",
    "'g-in-retry-10s' (2 partitions",
    "'in-dlt' (2 partitions, cleanup.policy=delete, max.message.bytes=1064972, message.timestamp.after.max.ms=3600000,",
    "'g-t-changelog' (as its input, cleanup.policy=compact)",
]


async def test_who_creates_topics_by_hand_hears_of_all_that_are_missing_at_once() -> None:
    engine = refused("missing", ("in", 2), tables=(Table("t"),), create_topics="never")
    with pytest.raises(ConfigurationError) as stopped:
        await engine.start()
    for each in MISSING:
        assert each in str(stopped.value)


async def test_they_are_told_where_the_source_is_missing_too() -> None:
    engine = refused("all-missing", tables=(Table("t"),), create_topics="never")
    with pytest.raises(ConfigurationError) as stopped:
        await engine.start()
    for each in ("'in' to consume", "'g-in-retry' (as its input", "'g-in-retry-10s'", "'in-dlt'", "'g-t-changelog'"):
        assert each in str(stopped.value)


async def test_a_retry_topic_with_other_partitions_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigurationError, match="The retry topic 'g-in-retry-10s' has 4 partitions, but its source"):
        await refused("four", ("in", 2), ("g-in-retry-10s", 4)).start()


@pytest.mark.parametrize(("options", "named"), [({"group_id": "g g"}, "a retry topic; choose another group_id"), (
    {"dead_letter": DeadLetter(topic="d/e")}, r"a dead letter topic.*DeadLetter\(topic=…\)")])  # fmt: skip
async def test_names_that_no_topic_can_have_are_refused(options: Any, named: str) -> None:
    memory_cluster("names").create_topics([TopicSpec("in", 1)])
    given = {"group_id": "g", "dead_letter": DeadLetter(), **options}
    with pytest.raises(ConfigurationError, match=named.replace("; choose", ".*choose")):
        await Engine(handler("in"), bootstrap_servers="memory://names", **given).start()
