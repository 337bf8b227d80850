"""Declared topics: what they may be, and what an engine needs of its topics."""

from dataclasses import dataclass
from typing import Any

import pytest

from paperboy import ConfigurationError, DeserializationError, Engine, GlobalTable, Handler, Retry, Table, Topic
from paperboy.brokers.protocol import ConsumerRecord, Record, TopicDescription, TopicSpec
from paperboy.engine.topics import Difference, NeededTopic, declared_topics, differences, topics_needed
from paperboy.handlers.decoding import Decoding
from paperboy.handlers.error_policy import DeadLetter
from paperboy.serializers import Bytes, Integer, Json, MessagePack, String


@dataclass
class Order:
    id: str


ORDERS = Topic("orders", key=str, value=Order, partitions=6, config={"retention.ms": 1000})
PAID = Topic("paid", key=Integer(), value=MessagePack(Order), partitions=3, replication_factor=2, ensure=True)


# --- What a topic may be ---------------------------------------------------------------


def test_types_and_serializers_say_what_is_in_a_topic() -> None:
    topic = Topic("orders", key=str, value=Order)
    assert isinstance(topic.key, String)
    assert isinstance(topic.value, Json)
    assert topic.value.serialize(Order("o-1")) == b'{"id":"o-1"}'
    assert isinstance(Topic("t", key=bytes).key, Bytes)
    assert Topic("t").key is Topic("t").value is None
    assert isinstance(PAID.key, Integer)


def test_settings_are_written_as_kafka_writes_them() -> None:
    config = {"retention.ms": 1000, "preallocate": True, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": 0.5}
    assert Topic("t", config=config).config == {
        "retention.ms": "1000",
        "preallocate": "true",
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.5",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "'' cannot name a topic"),
        ({"name": ".."}, "cannot name a topic"),
        ({"name": "a b"}, "cannot name a topic"),
        ({"name": "a" * 250}, "cannot name a topic"),
        ({"name": 7}, "7 cannot name a topic"),
        ({"partitions": 0}, "Topic 't': partitions=0 must be a whole number above 0"),
        ({"partitions": True}, "partitions=True"),
        ({"replication_factor": 1.5}, "replication_factor=1.5"),
        ({"config": {"retention.ms": None}}, "The topic setting 'retention.ms' is None: it must be text"),
        ({"ensure": True}, "Topic 't': ensure=True needs partitions=…"),
        ({"value": Json}, r"Topic 't': value is the class Json: give an instance of it, Json\(\)"),
        ({"key": object}, "Topic 't': key: object is no type that messages can have"),
    ],
    ids=str,
)
def test_what_is_no_topic_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Topic(**{"name": "t", **options})


# --- On a handler ----------------------------------------------------------------------


def handler(**attributes: Any) -> type[Handler[Any]]:
    return type("Orders", (Handler,), attributes)


def decoded(kind: type[Handler[Any]], topic: str, key: bytes, value: bytes) -> tuple[Any, Any]:
    record: Record = ConsumerRecord(topic, 0, 0, 0, 0, key, value, None, 1, 1, ())
    Decoding(kind).decode(record)
    return record.key, record.value


def test_each_topic_of_a_handler_is_decoded_by_its_own_serializers() -> None:
    kind = handler(topic=[ORDERS, PAID, "plain"])
    assert decoded(kind, "orders", b"k", b'{"id":"o-1"}') == ("k", Order("o-1"))
    assert decoded(kind, "paid", b"\0\0\0\1", MessagePack().serialize({"id": "o-2"})) == (1, Order("o-2"))
    assert decoded(kind, "plain", b"k", b"v") == (b"k", b"v")


def test_what_a_handler_says_goes_over_its_topic() -> None:
    assert decoded(handler(topic=ORDERS, value_serializer=Json()), "orders", b"k", b"{}") == ("k", {})
    assert decoded(handler(topic=ORDERS, key_serializer=bytes.hex), "orders", b"k", b'{"id":"1"}') == ("6b", Order("1"))
    plain = Topic("orders", value=MessagePack())
    data = MessagePack().serialize({"id": "1"})
    assert decoded(handler(topic=plain, value_type=Order), "orders", b"k", data) == (b"k", Order("1"))


def test_bytes_that_are_not_what_the_topic_says_name_it() -> None:
    with pytest.raises(
        DeserializationError,
        match=r"value of orders\[0\] offset 0 could not be decoded by the value=… of its Topic: b'x",
    ):
        decoded(handler(topic=ORDERS), "orders", b"k", b"x")


def test_a_handler_of_another_type_than_its_topic_s_is_refused() -> None:
    @dataclass
    class Click:
        page: str

    class Clicks(Handler[Click]):
        topic = ORDERS

    with pytest.raises(ConfigurationError, match=r"Handler\[Click\], but its values are made into Order"):
        Decoding(Clicks)


def test_a_global_table_reads_by_its_topic_s_serializers() -> None:
    table = GlobalTable("orders", ORDERS)
    assert table.topic == "orders"
    assert table.kept_as.codec.decode_value(b'{"id":"1"}') == Order("1")
    assert table.kept_as.codec.encode_key("k") == b"k"
    assert GlobalTable("orders", ORDERS, value_serializer=Bytes()).kept_as.codec.decode_value(b"x") == b"x"


@pytest.mark.parametrize("outputs", ["paid", [7], [""], {"paid"}], ids=repr)
def test_outputs_are_a_list_of_topics(outputs: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Orders\.outputs is .*: it must be a list of strings or Topics"):
        needed(Engine(handler(topic="orders", outputs=outputs), bootstrap_servers="memory://", group_id="g"))


def test_one_name_declared_in_two_ways_is_refused() -> None:
    kind = handler(topic=ORDERS, outputs=[Topic("orders", partitions=5)])
    with pytest.raises(ConfigurationError, match="Topic 'orders' is declared twice, and not in the same way"):
        needed(Engine(kind, bootstrap_servers="memory://", group_id="g"))
    same = Topic("orders", partitions=6, config={"retention.ms": "1000"})
    engine = Engine(handler(topic=ORDERS, outputs=[same]), bootstrap_servers="memory://", group_id="g")
    assert list(declared_topics(engine._dispatches, {})) == ["orders"]


# --- What an engine needs --------------------------------------------------------------


def needed(engine: Engine, *found: TopicDescription) -> dict[str, NeededTopic]:
    return {
        each.spec.name: each
        for each in topics_needed(
            engine._options,
            engine._dispatches,
            engine._tables,
            engine._global_tables,
            {topic.name: topic for topic in found},
        )
    }


def engine(**options: Any) -> Engine:
    kind = handler(
        topic=[ORDERS, "refunds"],
        outputs=[PAID, "mails"],
        retry=Retry(delays=["1m"], via="topics"),
        dead_letter=DeadLetter(),
    )
    engine = Engine(kind, bootstrap_servers="kafka:9092", group_id="g", **options)
    engine.register_table(Table("totals", changelog_topic_segment_ms=60_000))
    engine.register_table(GlobalTable("countries", Topic("countries", partitions=1)))
    engine.register_table(GlobalTable("shown", "g-totals-changelog"))
    return engine


def test_every_topic_is_there_with_what_it_is_for() -> None:
    found = needed(engine())
    assert {name: topic.purposes for name, topic in found.items()} == {
        "orders": ("input",),
        "refunds": ("input",),
        "paid": ("output",),
        "mails": ("output",),
        "countries": ("global table",),
        "g-totals-changelog": ("global table", "changelog"),
        "g-orders-retry": ("replays",),
        "g-refunds-retry": ("replays",),
        **{name: ("retries",) for name in found if name.endswith("-retry-1m")},
        "orders-dlt": ("dead letters",),
        "refunds-dlt": ("dead letters",),
    }
    assert sum(topic.purposes == ("retries",) for topic in found.values()) == 2
    assert [name for name, topic in found.items() if topic.is_created] == [
        name for name in found if name not in ("orders", "refunds", "mails", "countries")
    ]


def test_their_settings_are_what_was_declared_or_what_the_engine_makes() -> None:
    specs = {name: topic.spec for name, topic in needed(engine()).items()}
    assert specs["orders"] == TopicSpec("orders", 6, None, {"retention.ms": "1000"})
    assert specs["paid"] == TopicSpec("paid", 3, 2)
    assert specs["mails"] == TopicSpec("mails", 0)
    assert specs["countries"] == TopicSpec("countries", 1, None, {"cleanup.policy": "compact"})
    changelog = {"cleanup.policy": "compact", "segment.ms": "60000"}
    assert specs["g-totals-changelog"] == TopicSpec("g-totals-changelog", 6, None, changelog)
    assert specs["orders-dlt"].partitions == 6
    assert specs["refunds-dlt"].partitions == 0


def test_partitions_that_exist_count_more_than_declared_ones() -> None:
    real = [TopicDescription("orders", 4, {"retention.ms": "1000"}), TopicDescription("refunds", 4, {})]
    found = needed(engine(), *real)
    assert found["g-totals-changelog"].spec.partitions == 4
    assert found["refunds-dlt"].spec.partitions == 4
    assert found["orders"].differences == [Difference("partitions", "6", "4")]


def test_what_cannot_go_together_is_refused_in_the_plan_too() -> None:
    real = [TopicDescription("orders", 4, {}), TopicDescription("refunds", 5, {})]
    with pytest.raises(ConfigurationError, match="Topics that share a table need one partition count"):
        needed(engine(), *real)


def test_nothing_is_created_where_the_engine_may_not() -> None:
    assert not any(topic.is_created for topic in needed(engine(create_topics="never")).values())


def test_operations_are_those_of_all_purposes() -> None:
    found = needed(engine())
    assert {name: found[name].operations for name in ("orders", "mails", "paid", "countries")} == {
        "orders": ("Read", "DescribeConfigs"),
        "mails": ("Write", "DescribeConfigs"),
        "paid": ("Write", "DescribeConfigs", "Create"),
        "countries": ("Read", "DescribeConfigs"),
    }
    assert found["g-totals-changelog"].operations == ("Read", "DescribeConfigs", "Write", "Create")
    assert found["orders-dlt"].operations == ("Write", "DescribeConfigs", "Create")


# --- Differences -----------------------------------------------------------------------


def test_differences_have_both_values() -> None:
    spec = TopicSpec("t", 6, 3, {"cleanup.policy": "compact", "retention.ms": "1000", "new.setting": "1"})
    found = TopicDescription("t", 4, {"cleanup.policy": "delete", "retention.ms": "1000"}, replication_factor=1)
    assert differences(spec, found) == [
        ("partitions", "6", "4"),
        ("replication factor", "3", "1"),
        ("cleanup.policy", "compact", "delete"),
        ("new.setting", "1", "no such setting"),
    ]


@pytest.mark.parametrize(
    ("declared", "actual"),
    [("0.50", "0.5"), ("compact,delete", "delete, compact"), ("1000", "1000"), ("true", "true")],
)
def test_another_spelling_is_no_difference(declared: str, actual: str) -> None:
    assert differences(TopicSpec("t", 1, None, {"s": declared}), TopicDescription("t", 1, {"s": actual})) == []


def test_what_nobody_has_said_is_no_difference() -> None:
    assert differences(TopicSpec("t", 0), TopicDescription("t", 4, {"cleanup.policy": "delete"})) == []
    assert differences(TopicSpec("t", 4, 3), TopicDescription("t", 4, {})) == []
