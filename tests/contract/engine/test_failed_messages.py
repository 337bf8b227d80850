"""Messages that fail, where the broker has a say: large ones, their headers, topics that take no dead letter, waits."""

import asyncio
from typing import Any

import pytest

from paperboy import BulkHandler, CircuitBreaker, DeadLetter, Exponential, Handler, Retry
from paperboy.brokers.protocol import Record, TopicPartition, TopicSpec
from tests.contract.engine.kit import Kit, said, until

Headers = list[tuple[str, bytes]]


async def send(kit: Kit, topic: str, value: bytes, headers: Headers, partition: int = 0) -> None:
    async with kit.broker() as broker:
        producer = broker.producer()
        await producer.start()
        try:
            record = (b"k", value, headers, broker.clock.time_ms())
            (ack,) = await producer.send(TopicPartition(topic, partition), [record])
            await ack
        finally:
            await producer.stop()


def own(record: Record) -> Headers:
    return [header for header in record.headers if not header[0].startswith("paperboy.")]


def stack(record: Record) -> bytes:
    found: bytes = dict(record.headers)["paperboy.error.stack"]
    return found


@pytest.mark.parametrize("via", ["waiting", "topics"])
async def test_a_message_as_large_as_its_topic_takes_waits_and_becomes_a_dead_letter(kit: Kit, via: Any) -> None:
    source = await kit.topic("large")
    value = bytes(1_048_588 - 200)
    await send(kit, source, value, [("own", b"1")])
    attempts: list[int] = []

    class Failing(Handler):
        topic = source
        retry = Retry(delays=["10ms"], via=via)
        dead_letter = DeadLetter()

        @classmethod
        async def on_message(cls, msg, ctx):
            attempts.append(ctx.attempt)
            raise ValueError("文" * 5_000)

    async with kit.engine(Failing) as engine:
        await until(lambda: engine.status().dead_lettered == 1)
    (dead,) = await kit.read(f"{source}-dlt")
    assert (dead.value == value, own(dead)) == (True, [("own", b"1")])
    assert attempts == [1, 2]


async def test_a_dead_letter_for_which_its_topic_has_no_room_goes_without_its_stack(kit: Kit) -> None:
    source = await kit.topic("in")
    dead_topic = await kit.topic("small", max_message_bytes="2000")
    await send(kit, source, bytes(200), [])

    class Failing(Handler):
        topic = source
        dead_letter = DeadLetter(topic=dead_topic)

        @classmethod
        async def on_message(cls, msg, ctx):
            raise ValueError("long " * 400)

    async with kit.engine(Failing) as engine:
        await engine.caught_up()
    (dead,) = await kit.read(dead_topic)
    assert (dead.value, stack(dead)) == (bytes(200), b"")


async def test_a_topic_that_takes_no_dead_letter_stops_the_engine_and_nothing_is_committed_past_it(kit: Kit) -> None:
    source = await kit.topic("in")
    dead_topic = await kit.topic("small", max_message_bytes="2000")
    for value in (b"good", bytes(3000), b"good"):
        await send(kit, source, value, [])

    class Failing(Handler):
        topic = source
        dead_letter = DeadLetter(topic=dead_topic)

        @classmethod
        async def on_message(cls, msg, ctx):
            if len(msg.value) > 10:
                raise ValueError("no")

    engine = kit.engine(Failing)
    with pytest.raises(Exception, match=f"'{dead_topic}' is larger than") as raised:
        await engine.start()
    assert isinstance(raised.value.__cause__, ValueError)
    assert await kit.committed(source) == 1
    assert await kit.read(dead_topic) == []


async def test_a_topic_that_takes_no_dead_letter_is_waited_for_and_the_message_goes_there_when_it_does(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paperboy.handlers.put_away._UNWRITABLE_WAIT_SEC", 0.2)
    source, dead_topic = await kit.topic("in"), f"dead-{kit.unique}"
    small = {"max.message.bytes": "2000"}
    for value in (b"good", bytes(3000), b"good"):
        await send(kit, source, value, [])

    class Failing(Handler):
        topic = source
        dead_letter = DeadLetter(topic=dead_topic, config=small, unwritable="wait")

        @classmethod
        async def on_message(cls, msg, ctx):
            if len(msg.value) > 10:
                raise ValueError("no")

    async with kit.engine(Failing) as engine, kit.broker() as broker:
        await until(lambda: engine.status().retried >= 3)
        assert engine.status().handled == 1
        assert await kit.committed(source) in (0, 1)
        await broker.delete_topics([dead_topic])
        await until(lambda: engine.status().retried >= 5)
        await until_made(kit, dead_topic)
        await engine.caught_up()
        assert engine.status().dead_lettered == 1
    (dead,) = await kit.read(dead_topic)
    assert dead.value == bytes(3000)


async def until_made(kit: Kit, topic: str) -> None:
    """Deleting takes a Kafka a moment, in which the topic cannot be made anew."""
    async with kit.broker() as broker:
        while topic in await broker.describe_topics([topic]):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.05)
        await broker.create_topics([TopicSpec(topic, 1)])


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("threshold", [1, 10_000], ids=["bulk", "single"])
@pytest.mark.parametrize("kind", ["messages", "lists"])
async def test_headers_that_a_hook_has_changed_are_as_they_were_in_the_next_attempt_and_in_the_dead_letter(
    kit: Kit, kind: str, threshold: int, lanes: int
) -> None:
    source = await kit.topic("in", 2)
    whole: list[Headers] = [[("own", b"1")], []]
    for headers in whole:
        await send(kit, source, b"v", headers, partition=1)
    seen: dict[int, list[Headers]] = {0: [], 1: []}

    async def handle(messages: list[Any]) -> None:
        for msg in messages:
            seen[msg.offset].append(list(msg.headers))
            if isinstance(msg.headers, list):
                msg.headers.append(("mine", b"2"))
            msg.headers = [*msg.headers, ("mine", b"3")]
            msg.value = msg.key = None
        raise ValueError("no")

    class Messages(Handler):
        topic = source
        concurrency = lanes
        retry = Retry(attempts=2, backoff=Exponential("1ms", jitter=0))
        dead_letter = DeadLetter()

        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            await handle(msgs if isinstance(msgs, list) else [msgs])

    class Lists(BulkHandler):
        topic = source
        concurrency = lanes
        retry = Retry(attempts=2, backoff=Exponential("1ms", jitter=0))
        dead_letter = DeadLetter()

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            await handle(msgs)

    options = {"bulk_mode_threshold": threshold, "commit_interval_sec": 30}
    async with kit.engine(Messages if kind == "messages" else Lists, **options) as engine:
        await engine.caught_up()
    dead = await kit.read(f"{source}-dlt")
    assert [(letter.key, letter.value, letter.partition, own(letter)) for letter in dead] == [
        (b"k", b"v", 1, headers) for headers in whole
    ]
    assert {offset: set(map(str, each)) for offset, each in seen.items()} == {
        offset: {str(headers)} for offset, headers in enumerate(whole)
    }


async def test_a_rebalance_while_messages_wait_is_prompt_and_they_are_handled_where_they_are_then(kit: Kit) -> None:
    source = await kit.topic("in", 2)
    for partition in range(2):
        await send(kit, source, b"v", [], partition)
    handled: list[tuple[str, int, int]] = []
    is_away = True

    def handler(worker: str) -> type[Handler]:
        class Waiting(Handler):
            topic = source
            retry = Retry(delays=["1h"])

            @classmethod
            async def on_message(cls, msg, ctx):
                handled.append((worker, msg.partition, ctx.attempt))
                if is_away:
                    raise ConnectionError("away")

        return Waiting

    async with kit.engine(handler("first")) as first:
        await until(lambda: len(handled) == 2)
        assert first.health().alive
        is_away = False
        async with asyncio.timeout(20), kit.engine(handler("second")) as second:
            await second.caught_up()
    assert sorted(handled[2:]) == [("first", 0, 1), ("second", 1, 1)] or sorted(handled[2:]) == [
        ("first", 1, 1), ("second", 0, 1)
    ]  # fmt: skip
    assert [await kit.committed(source, partition) for partition in range(2)] == [1, 1]


async def test_what_waits_in_topics_is_never_early_and_survives_a_restart(kit: Kit) -> None:
    source = await kit.topic("in")
    await send(kit, source, b"v", [("own", b"1")])
    times: list[tuple[int, int, Any]] = []

    def handler() -> type[Handler]:
        class Delayed(Handler):
            topic = source
            retry = Retry(delays=["1s"], via="topics")
            dead_letter = DeadLetter()

            @classmethod
            async def on_message(cls, msg, ctx):
                async with kit.broker() as broker:
                    times.append((broker.clock.time_ms(), ctx.attempt, (msg.topic, msg.offset, list(msg.headers))))
                raise ValueError("no")

        return Delayed

    async with kit.engine(handler()) as engine:
        await engine.caught_up()
    assert len(times) == 1
    async with kit.engine(handler()) as engine:
        await until(lambda: engine.status().dead_lettered == 1)
    (first, _, message), (second, attempt, again) = times
    (waited,) = await kit.read(f"{kit.group}-{source}-retry-1s")
    assert int(dict(waited.headers)["paperboy.due"]) <= second
    assert second - first >= 1_000
    assert (attempt, again) == (2, message)
    assert message == (source, 0, [("own", b"1")])


async def test_messages_that_wait_for_a_delay_that_is_no_longer_declared_are_told_of(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    source = await kit.topic("in")
    await kit.send_values(source, b"bad")

    class Failing(Handler):
        topic = source
        retry = Retry(delays=["1h"], via="topics")

        @classmethod
        async def on_message(cls, msg, ctx):
            raise ValueError("no")

    class Changed(Failing):
        retry = Retry(delays=["2h"], via="topics")

    async with kit.engine(Failing) as engine:
        await engine.caught_up()
    async with kit.engine(Failing):
        pass
    told = "messages wait in a retry topic that is not read"
    assert said(caplog, told) == []
    async with kit.engine(Changed):
        pass
    (line,) = said(caplog, told)
    assert (line["topic"], line["records"]) == (f"{kit.group}-{source}-retry-1h", 1)


@pytest.mark.parametrize("at_once", [1, 3])
async def test_while_what_a_handler_needs_is_away_nothing_is_given_up_and_then_all_goes_on(
    kit: Kit, at_once: int
) -> None:
    source = await kit.topic("in", 2)
    for partition in range(2):
        await kit.send_values(source, *[b"%d" % number for number in range(20)], partition=partition)
    away, tried, handled = True, 0, list[bytes]()

    class Needy(Handler):
        topic = source
        concurrency = at_once
        dead_letter = DeadLetter()
        circuit_breaker = CircuitBreaker(failures=1, pause="200ms", on=ConnectionError)

        @classmethod
        async def on_message(cls, msg, ctx):
            nonlocal tried
            tried += 1
            if away:
                raise ConnectionError("away")
            handled.append(msg.value)

    async with kit.engine(Needy) as engine:
        await until(lambda: engine.status().paused >= 4)
        # Both partitions' first ones (with lanes: those in flight with them), and after each pause one.
        assert tried <= 2 * at_once + engine.status().paused
        assert (await kit.committed(source, 0), await kit.committed(source, 1)) == (0, 0)
        away = False
        await engine.caught_up()
        status = engine.status()
    assert sorted(handled, key=int) == sorted([b"%d" % number for number in range(20)] * 2, key=int)
    assert (status.dead_lettered, status.passed_over) == (0, 0)
    assert await kit.read(f"{source}-dlt") == []
