"""Records on their way out: what is refused at once, where they go, and what a failed one does."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.memory import open_memory_broker
from paperboy.brokers.partitioner import partition_for_key
from paperboy.brokers.protocol import Ack, Outgoing, TopicDescription, TopicPartition, TopicSpec
from paperboy.engine.outbox import Outbox, Send, Topics, check_bytes, check_sendable, checked_headers
from paperboy.errors import BrokerError, RecordTooLarge, SerializationError, TopicNotFound

pytestmark = pytest.mark.time_limit(10)

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
LIMIT = 1_048_588


class Clock:
    def time_ms(self) -> int:
        return NOW_MS


class Producer:
    """Takes records, and acknowledges a batch when it is told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[TopicPartition, list[Outgoing]]] = []
        self.acks: list[asyncio.Future[Ack]] = []
        self.refuses: Exception | None = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, partition: TopicPartition, records: Sequence[Outgoing]) -> list["asyncio.Future[Ack]"]:
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        self.sent.append((partition, list(records)))
        self.acks.append(asyncio.get_running_loop().create_future())
        return [self.acks[-1]]

    def acknowledge(self) -> None:
        for number, ack in enumerate(self.acks):
            if not ack.done():
                ack.set_result(Ack(number, 1))

    @property
    def values(self) -> list[tuple[TopicPartition, list[bytes | None]]]:
        return [(partition, [value for _, value, _, _ in records]) for partition, records in self.sent]


class Packing(Producer):
    """As `Producer`, in transactions."""

    transactional_id = "id"

    def batches(self, partition: TopicPartition) -> "Packed":
        return Packed(self, partition)

    async def commit(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None: ...

    async def abort(self) -> None: ...


class Packed:
    def __init__(self, producer: Producer, partition: TopicPartition) -> None:
        self._producer = producer
        self._partition = partition
        self._records: list[Outgoing] = []

    def extend(self, records: Iterable[Outgoing]) -> None:
        self._records.extend(records)

    async def send(self) -> list["asyncio.Future[Ack]"]:
        return await self._producer.send(self._partition, self._records)


async def outbox_for(producer: Producer, max_unacked_bytes: int = 1_000_000, **partitions: int) -> Outbox:
    """An outbox that knows topics of these names, each with so many partitions."""
    broker = open_memory_broker("memory://")
    await broker.start()
    await broker.create_topics([TopicSpec(name, count) for name, count in partitions.items()])
    topics = Topics(broker)
    await topics.learn(list(partitions))
    return Outbox(producer, topics, Clock(), max_unacked_bytes)


def send(value: bytes | None = b"x", key: bytes | None = None, *, topic: str = "out", **more: Any) -> Send:
    return (topic, more.get("partition"), key, value, more.get("headers", ()), more.get("timestamp_ms"))


# What is refused when a record is sent.


@pytest.mark.parametrize(
    ("key", "value", "headers", "message"),
    [
        ("k", b"", (), "The key sent to topic 'out' is str, not bytes or None: encode it, or give key_serializer=…"),
        (1, b"", (), "The key sent to topic 'out' is int, not bytes or None: encode it, or give key_serializer=…"),
        (None, "v", (), "The value sent to topic 'out' is str, not bytes or None: encode it, or give serializer=…"),
        (
            None,
            bytearray(b"v"),
            (),
            "The value sent to topic 'out' is bytearray, not bytes or None: encode it, or give serializer=…",
        ),
        (
            None,
            {"a": 1},
            (),
            "The value sent to topic 'out' is dict, not bytes or None: encode it, or give serializer=…",
        ),
        (None, b"", [("a", 1)], "A header sent to topic 'out' is ('a', 1), not a pair of a str, and bytes or a str."),
        (None, b"", [("a", "\ud800")], "A header sent to topic 'out' is ('a', '\\ud800'), not a pair of a str"),
        (
            None,
            b"",
            [(b"a", b"b")],
            "A header sent to topic 'out' is (b'a', b'b'), not a pair of a str, and bytes or a str.",
        ),
        (None, b"", [("a", b"b"), (None, b"c")], "A header sent to topic 'out' is (None, b'c'), not a pair of"),
        (None, b"", [("a", b"b", b"c")], "A header sent to topic 'out' is ('a', b'b', b'c'), not a pair of"),
        (None, b"", [("a",)], "A header sent to topic 'out' is ('a',), not a pair of a str, and bytes or a str."),
        (None, b"", {"a": b"b"}, "A header sent to topic 'out' is 'a', not a pair of a str, and bytes or a str."),
        (None, b"", {"ab": b"b"}, "A header sent to topic 'out' is 'ab', not a pair of a str, and bytes or a str."),
        (None, b"", 7, "A header sent to topic 'out' is 7, not a pair of a str, and bytes or a str."),
        (None, b"", None, "A header sent to topic 'out' is None, not a pair of a str, and bytes or a str."),
        (None, b"", [("a\ud800", b"")], "A header sent to topic 'out' is ('a\\ud800', b''), not a pair of"),
    ],
)
def test_only_bytes_go_out(key: object, value: object, headers: object, message: str) -> None:
    def check() -> None:
        check_bytes("out", key, value)
        checked_headers("out", headers)  # type: ignore[arg-type]

    with pytest.raises(SerializationError) as caught:
        check()
    assert str(caught.value).startswith(message)


def test_headers_of_str_go_out_in_utf_8_in_order_and_as_often_as_they_are() -> None:
    given = [("b", "é"), ("a", b"\xff"), ("b", "é"), ("b", "")]
    ways: list[Any] = [given, tuple(given), iter(given), map(list, given)]
    for headers in ways:
        assert checked_headers("out", headers) == (("b", "é".encode()), ("a", b"\xff"), ("b", "é".encode()), ("b", b""))


@pytest.mark.parametrize("headers", [(), [], [("a", b"b"), ("a", b"")], (("é", b"\xff"),), [("null", None)]])
def test_bytes_and_none_go_out(headers: Any) -> None:
    for key in (None, b"", b"k"):
        for value in (None, b"", b"v"):
            check_bytes("out", key, value)
    assert checked_headers("out", headers) == tuple(headers)
    assert checked_headers("out", iter(headers)) == tuple(headers)


def topic(partitions: int = 4, **config: str) -> TopicDescription:
    return TopicDescription("out", partitions, {name.replace("_", "."): value for name, value in config.items()})


@pytest.mark.parametrize("partition", [-1, 4, 100])
def test_a_partition_that_the_topic_does_not_have_is_refused(partition: int) -> None:
    with pytest.raises(BrokerError) as caught:
        check_sendable(send(partition=partition), topic(), NOW_MS)
    assert str(caught.value) == f"Topic 'out' has no partition {partition}: it has 4."
    for existing in (None, 0, 3):
        check_sendable(send(partition=existing), topic(), NOW_MS)


@pytest.mark.parametrize(
    "too_large",
    [
        send(b"x" * LIMIT),
        send(b"", b"x" * LIMIT),
        send(b"x" * (LIMIT // 2), b"x" * (LIMIT // 2)),
        send(headers=(("a", b"x" * LIMIT),)),
        send(headers=[("a", b"")] * 100_000),
        send(headers=(("é" * 600_000, b""),)),
    ],
    ids=["value", "key", "both", "header", "headers", "header name"],
)
def test_a_record_larger_than_its_topic_takes_is_refused(too_large: Send) -> None:
    with pytest.raises(RecordTooLarge) as caught:
        check_sendable(too_large, topic(), NOW_MS)
    assert "for topic 'out' is larger than" in str(caught.value)
    assert str(caught.value).endswith("send less, or raise the topic's max.message.bytes.")
    check_sendable(too_large, topic(max_message_bytes="2000000"), NOW_MS)


def test_the_limit_is_the_topics_own() -> None:
    check_sendable(send(b"x" * 800), topic(max_message_bytes="1000"), NOW_MS)
    with pytest.raises(RecordTooLarge, match="A record of 900 bytes for topic 'out' is larger than the 872 it takes"):
        check_sendable(send(b"x" * 900), topic(max_message_bytes="1000"), NOW_MS)


@pytest.mark.parametrize("timestamp_ms", [-1, NOW_MS + HOUR_MS + 1, NOW_MS * 1000, 1.5, float("nan"), "now", True])
def test_a_timestamp_that_the_broker_would_refuse_is_refused(timestamp_ms: Any) -> None:
    with pytest.raises(BrokerError, match=rf"A record for topic 'out' has timestamp {timestamp_ms!r}"):
        check_sendable(send(timestamp_ms=timestamp_ms), topic(), NOW_MS)


def test_a_timestamp_may_be_as_far_ahead_and_as_old_as_its_topic_allows() -> None:
    for timestamp_ms in (None, 0, NOW_MS, NOW_MS + HOUR_MS):
        check_sendable(send(timestamp_ms=timestamp_ms), topic(), NOW_MS)
    narrow = topic(message_timestamp_after_max_ms="1000", message_timestamp_before_max_ms="2000")
    for timestamp_ms in (NOW_MS - 1_999, NOW_MS + 1_000):
        check_sendable(send(timestamp_ms=timestamp_ms), narrow, NOW_MS)
    for timestamp_ms in (NOW_MS - 2_001, NOW_MS + 1_001):
        with pytest.raises(BrokerError, match="has timestamp"):
            check_sendable(send(timestamp_ms=timestamp_ms), narrow, NOW_MS)
    wide = topic(message_timestamp_after_max_ms=str(2**63 - 1))
    check_sendable(send(timestamp_ms=NOW_MS + 2 * HOUR_MS), wide, NOW_MS)


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_record_without_a_key_is_refused_where_its_topic_is_compacted(policy: str) -> None:
    with pytest.raises(BrokerError) as caught:
        check_sendable(send(), topic(cleanup_policy=policy), NOW_MS)
    assert str(caught.value) == "A record for topic 'out' has no key, and the topic is compacted: give it one."
    check_sendable(send(key=b""), topic(cleanup_policy=policy), NOW_MS)
    check_sendable(send(), topic(cleanup_policy="delete"), NOW_MS)


async def test_what_passes_is_taken_by_the_broker() -> None:
    """A record just below the limit, with whatever it is made of."""
    broker = open_memory_broker("memory://")
    await broker.start()
    for number, (key, headers) in enumerate([(None, ()), (b"k" * 300, ()), (b"k", [("h", b"v" * 20)] * 30)]):
        name = f"out-{number}"
        await broker.create_topics([TopicSpec(name, 1, config={"max.message.bytes": "2000"})])
        found = (await broker.describe_topics([name]))[name]
        producer = broker.producer()
        await producer.start()
        for size in range(2_000, 0, -1):
            record: Send = (name, 0, key, b"x" * size, headers, None)
            try:
                check_sendable(record, found, broker.clock.time_ms())
            except RecordTooLarge:
                continue
            [ack] = await producer.send(TopicPartition(name, 0), [(key, b"x" * size, headers, broker.clock.time_ms())])
            await ack
            break
        await producer.stop()


# Topics.


async def test_a_topic_is_asked_for_once() -> None:
    broker = open_memory_broker("memory://")
    await broker.start()
    await broker.create_topics([TopicSpec("out", 3)])
    topics = Topics(broker)
    assert topics.get("out") is None
    await topics.learn(["out"])
    assert topics["out"].partitions == 3
    broker.cluster.fail_next("describe", BrokerError("asked again"))
    await topics.learn(["out"])


async def test_a_topic_that_does_not_exist_is_named() -> None:
    broker = open_memory_broker("memory://flights")
    await broker.start()
    with pytest.raises(TopicNotFound) as caught:
        await Topics(broker).learn(["nowhere"])
    assert str(caught.value) == (
        "Topic 'nowhere', to which a record was sent, does not exist on memory://flights: create it first."
    )


# The outbox.


async def test_records_go_out_in_their_order_by_partition() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=2, other=1)
    for number in range(4):
        outbox.put([send(b"%d" % number, partition=number % 2)])
    outbox.put([send(b"4", topic="other")])
    assert producer.sent == []
    assert outbox.bytes > 0
    await outbox.flush()
    assert producer.values == [
        (TopicPartition("out", 0), [b"0", b"2"]),
        (TopicPartition("out", 1), [b"1", b"3"]),
        (TopicPartition("other", 0), [b"4"]),
    ]
    assert outbox.bytes == 0


async def test_a_record_goes_out_as_it_was_sent_with_the_time_of_now_where_it_has_none() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=1)
    outbox.put([send(None, b"k", headers=(("h", b"1"), ("h", b"2")))])
    outbox.put([send(b"v", timestamp_ms=7)])
    await outbox.flush()
    [(_, records)] = producer.sent
    assert records == [(b"k", None, (("h", b"1"), ("h", b"2")), NOW_MS), (None, b"v", (), 7)]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=20), st.integers(1, 12))
def test_a_record_with_a_key_goes_where_every_kafka_client_would_send_it(keys: list[bytes], count: int) -> None:
    async def scenario() -> None:
        producer = Producer()
        outbox = await outbox_for(producer, out=count)
        for key in keys:
            outbox.put([send(key=key)])
        await outbox.flush()
        went = {key: partition.partition for partition, records in producer.sent for key, _, _, _ in records}
        assert went == {key: partition_for_key(key, count) for key in keys}

    asyncio.run(scenario())


async def test_records_without_a_key_stay_together_until_a_flush_and_then_move_on() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=3)
    for _ in range(4):
        outbox.put([send(b"a")])
        outbox.put([send(b"b")])
        await outbox.flush()
    assert [values for _, values in producer.values] == [[b"a", b"b"]] * 4
    assert [partition.partition for partition, _ in producer.values] == [0, 1, 2, 0]


async def test_a_partition_that_is_named_wins_over_the_key() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=4)
    for partition in range(4):
        outbox.put([send(key=b"k", partition=partition)])
    await outbox.flush()
    assert [partition.partition for partition, _ in producer.sent] == [0, 1, 2, 3]


async def test_what_waits_is_counted_with_keys_values_and_headers() -> None:
    outbox = await outbox_for(Producer(), out=1)
    outbox.put([send(b"v" * 1_000, b"k" * 1_000, headers=(("h" * 1_000, b"h" * 1_000),))])
    assert 4_000 <= outbox.bytes < 4_500
    outbox.put([send(None)])
    assert 4_000 < outbox.bytes < 5_000


async def test_a_flush_does_not_wait_for_acks_below_the_bound() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, max_unacked_bytes=10_000, out=1)
    outbox.put([send(b"x" * 5_000)])
    await outbox.flush()
    outbox.put([send(b"x" * 4_000)])
    await outbox.flush()
    assert not any(ack.done() for ack in producer.acks)


async def test_a_flush_waits_for_acks_above_the_bound() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, max_unacked_bytes=10_000, out=1)
    outbox.put([send(b"x" * 6_000)])
    await outbox.flush()
    outbox.put([send(b"x" * 6_000)])
    flushing = asyncio.ensure_future(outbox.flush())
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(producer.sent) == 2
    assert not flushing.done()
    producer.acknowledge()
    await flushing
    outbox.put([send(b"x" * 6_000)])  # what is acknowledged is not counted any more
    await outbox.flush()


async def test_an_earlier_failure_comes_out_with_the_next_flush() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=1)
    outbox.put([send(b"1")])
    await outbox.flush()
    producer.acks[0].set_exception(BrokerError("refused"))
    outbox.put([send(b"2")])
    producer_settles(producer)
    with pytest.raises(BrokerError, match="refused"):
        await outbox.flush()


def producer_settles(producer: Producer) -> None:
    """From now on every batch is acknowledged at once."""
    send_as_before = producer.send

    async def send_and_acknowledge(
        partition: TopicPartition, records: Sequence[Outgoing]
    ) -> list["asyncio.Future[Ack]"]:
        acks = await send_as_before(partition, records)
        producer.acknowledge()
        return acks

    producer.send = send_and_acknowledge  # type: ignore[method-assign]


async def test_a_failure_comes_out_even_while_other_batches_are_under_way() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=1)
    for _ in range(2):
        outbox.put([send()])
        await outbox.flush()
    producer.acks[0].set_exception(BrokerError("refused"))
    outbox.put([send()])
    with pytest.raises(BrokerError, match="refused"):
        await outbox.flush()


async def test_a_failure_comes_out_of_the_wait_for_acks() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, max_unacked_bytes=100, out=1)
    outbox.put([send(b"x" * 200)])
    flushing = asyncio.ensure_future(outbox.flush())
    for _ in range(10):
        await asyncio.sleep(0)
    producer.acks[0].set_exception(BrokerError("refused"))
    with pytest.raises(BrokerError, match="refused"):
        await flushing


async def test_what_the_producer_refuses_comes_out_of_the_flush() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=1)
    producer.refuses = BrokerError("closed")
    outbox.put([send()])
    with pytest.raises(BrokerError, match="closed"):
        await outbox.flush()


async def test_acks_are_handed_over_once() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, max_unacked_bytes=10_000, out=1)
    outbox.put([send(b"x" * 9_000)])
    await outbox.flush()
    assert outbox.take_acks() == producer.acks
    assert outbox.take_acks() == []
    outbox.put([send(b"x" * 9_000)])
    await outbox.flush()  # whoever took the first acks waits for them, not we
    assert outbox.take_acks() == producer.acks[1:]


async def test_a_failed_ack_that_was_handed_over_is_not_raised_here_as_well() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=1)
    outbox.put([send()])
    await outbox.flush()
    [ack] = outbox.take_acks()
    ack.set_exception(BrokerError("refused"))
    assert isinstance(ack.exception(), BrokerError)
    outbox.put([send()])
    producer_settles(producer)
    await outbox.flush()


async def test_what_is_discarded_is_forgotten() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, max_unacked_bytes=10_000, out=1)
    outbox.put([send(b"x" * 9_000)])
    await outbox.flush()
    outbox.put([send(b"y" * 9_000)])
    outbox.discard()
    assert outbox.bytes == 0
    assert outbox.take_acks() == []
    outbox.put([send(b"z" * 9_000)])
    await outbox.flush()
    assert [values for _, values in producer.values] == [[b"x" * 9_000], [b"z" * 9_000]]


async def test_what_is_packed_goes_out_with_the_next_flush_before_what_was_sent_since() -> None:
    producer = Packing()
    outbox = await outbox_for(producer, out=2, other=1)
    outbox.put([send(b"1", partition=0), send(b"2", partition=1)])
    outbox.pack(producer)
    outbox.put([send(b"3", partition=0)])
    outbox.pack(producer)
    outbox.put([send(b"4", partition=0), send(b"5", topic="other")])
    assert producer.sent == []
    assert outbox.bytes == sum(64 + len(value) for value in (b"1", b"2", b"3", b"4", b"5")), "it counts as before"
    await outbox.flush()
    assert sorted(producer.values) == [
        (TopicPartition("other", 0), [b"5"]),
        (TopicPartition("out", 0), [b"1", b"3", b"4"]),
        (TopicPartition("out", 1), [b"2"]),
    ]
    assert outbox.bytes == 0
    assert outbox.take_acks() == producer.acks
    await outbox.flush()
    assert len(producer.sent) == 3, "once"


async def test_what_is_packed_and_discarded_is_forgotten() -> None:
    producer = Packing()
    outbox = await outbox_for(producer, out=1)
    outbox.put([send()])
    outbox.pack(producer)
    outbox.discard()
    assert outbox.bytes == 0
    await outbox.flush()
    assert producer.sent == []


async def test_a_flush_of_nothing_sends_nothing() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, max_unacked_bytes=1, out=1)
    await outbox.flush()
    assert producer.sent == []


async def test_flushes_keep_the_order_even_when_two_run_at_once() -> None:
    producer = Producer()
    outbox = await outbox_for(producer, out=3)
    flushing = []
    for number in range(20):
        for partition in range(3) if number % 2 else reversed(range(3)):
            outbox.put([send(b"%d" % number, partition=partition)])
        flushing.append(asyncio.ensure_future(outbox.flush()))
        await asyncio.sleep(0)
    await asyncio.gather(*flushing)
    for partition in range(3):
        went = [value for each, sent in producer.values if each.partition == partition for value in sent]
        assert went == [b"%d" % number for number in range(20)]
