"""Replaying and deleting dead letters, on each broker."""

import asyncio
import itertools
import json
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest

from paperboy.brokers.protocol import Record, TopicPartition, TopicSpec
from paperboy.cli import purge, replay
from paperboy.cli.administration import Administration
from paperboy.cli.dead_letters import letter_of
from paperboy.cli.errors import LedgerError, Misuse
from paperboy.cli.letter_filter import LetterFilter, Offsets
from paperboy.cli.replay_ways import ToOriginal
from paperboy.errors import BrokerError, ProducerFenced
from paperboy.handlers.failed_record import read_failed
from tests.contract.engine.dead_letters import Desk, administration, new_desk, originals, same_message, write
from tests.contract.engine.kit import Kit


async def test_a_replayed_letter_is_handled_by_the_group_that_failed_with_its_tables_and_by_nobody_else(
    kit: Kit,
) -> None:
    desk, others = await new_desk(kit, partitions=2), await new_desk(kit)
    others.topic, others.bad = desk.topic, set()
    now = desk.sent_ms
    original = (b"anna", b"bad", [("trace", b"7"), ("trace", b"8")], now)
    await write(kit, TopicPartition(desk.topic, 1), [(b"bert", b"good", (), now - 1), original])
    sent = (await kit.read(desk.topic))[1]
    assert await desk.run() == {b"bert": b"good"}
    assert await others.run(group=f"others-{kit.unique}") == {b"anna": b"bad", b"bert": b"good"}
    assert len(await kit.read(desk.dead)) == 1
    desk.bad.clear()
    handled = len(others.handled)
    assert await desk.replay() == 1
    assert await desk.run() == {b"anna": b"bad", b"bert": b"good"}
    assert same_message(desk.handled[-1], sent)
    assert await others.run(group=f"others-{kit.unique}") == {b"anna": b"bad", b"bert": b"good"}
    assert len(others.handled) == handled
    assert len(await kit.read(desk.topic)) == 2


async def test_a_worker_that_runs_handles_what_is_replayed_at_once(kit: Kit) -> None:
    desk = await new_desk(kit)
    await kit.send(desk.topic, [(b"anna", b"bad")])
    engine, amounts = desk.engine()
    async with engine:
        await engine.caught_up()
        assert desk.handled == []
        desk.bad.clear()
        assert await desk.replay() == 1
        await engine.caught_up()
        assert [(entry.key, entry.value) for entry in amounts.snapshot()] == [(b"anna", b"bad")]


async def test_letters_go_in_their_order_and_come_back_as_the_messages_they_were(kit: Kit) -> None:
    desk = await new_desk(kit, partitions=2)
    await desk.make_topics()
    letters = [
        desk.letter(b"%d" % number, 1, number, key=b"%d" % (number % 7), headers=[("n", b"%d" % number), ("n", b"")])
        for number in range(1100)
    ]
    await write(kit, TopicPartition(desk.dead, 1), letters)
    await desk.put([b"other"], partition=0, headers=[("paperboy.other", b"stays")])
    assert await desk.replay() == 1101
    other, *records = await kit.read(desk.retry)
    assert originals(records, desk.topic) == [
        (
            desk.topic,
            1,
            number,
            desk.sent_ms + number,
            b"%d" % (number % 7),
            b"%d" % number,
            (("n", b"%d" % number), ("n", b"")),
        )
        for number in range(1100)
    ]
    assert originals([other], desk.topic)[0][-2:] == (b"other", (("paperboy.other", b"stays"),))


async def test_attempts_begin_anew_and_the_first_failure_stays(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"bad"], attempts=5, first_ms=1_000, last_ms=2_000)
    assert await desk.replay() == 1
    (record,) = await kit.read(desk.retry)
    failed = read_failed(record)
    assert failed is not None
    assert (failed.attempts, failed.first_ms, failed.last_ms, failed.due_ms) == (0, 1_000, 2_000, None)
    async with kit.broker() as broker:
        assert abs(record.timestamp - broker.clock.time_ms()) < 60_000  # or retention would take it at once


async def test_a_letter_that_fails_again_becomes_a_new_one_of_the_same_message_which_can_be_replayed_in_turn(
    kit: Kit,
) -> None:
    desk = await new_desk(kit)
    await kit.send(desk.topic, [(b"anna", b"good"), (b"anna", b"bad")])
    await desk.run()
    (first,) = await kit.read(desk.dead)
    assert await desk.replay() == 1
    await desk.run()
    _, second = await kit.read(desk.dead)
    one, two = letter_of(first), letter_of(second)
    assert one.failed is not None
    assert two.failed is not None
    assert (two.key, two.value, list(two.headers), two.timestamp_ms) == (
        one.key,
        one.value,
        list(one.headers),
        one.timestamp_ms,
    )
    same = replace(two.failed, last_ms=one.failed.last_ms, stack=one.failed.stack)
    assert same == one.failed
    assert await desk.replay() == 1
    desk.bad.clear()
    assert (await desk.run())[b"anna"] == b"bad"
    assert await desk.replay() == 0


async def test_what_fails_again_during_a_replay_is_left_for_the_next_one(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a"])
    async with administration(kit) as broker:
        planned = await desk.plan(broker)
        await desk.put([b"a"], first=0)
        await replay.carry_out(planned, broker)
        await desk.until_visible(broker)
    assert await desk.replayed() == [b"a"]
    assert await desk.replay() == 1


async def test_no_letter_goes_twice_but_with_again(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b"])
    assert await desk.replay() == 2
    assert await desk.replay() == 0
    await desk.put([b"c"], first=2)
    assert await desk.replay() == 1
    assert await desk.replayed() == [b"a", b"b", b"c"]
    assert await desk.replay(LetterFilter(offsets=(Offsets(0, 1, 1),)), again=True) == 1
    assert await desk.replay() == 0
    assert await desk.replayed() == [b"a", b"b", b"c", b"b"]


async def test_what_was_replayed_is_known_though_the_retry_topic_has_forgotten_it(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b"])
    assert await desk.replay() == 2
    async with administration(kit) as broker:
        await broker.delete_records({TopicPartition(desk.retry, 0): 2})
    assert await desk.replay() == 0


async def test_letters_that_are_meant_go_and_others_stay(kit: Kit) -> None:
    desk = await new_desk(kit, partitions=2)
    await desk.make_topics()
    await desk.put([b"a", b"b"], error_class="shop.Refused", last_ms=1000)
    await desk.put([b"c", b"d"], partition=1, error_class="LookupError", last_ms=2000, key=b"anna")
    assert await desk.replay(LetterFilter(error="refused", offsets=(Offsets(0, 1),))) == 1
    assert await desk.replayed() == [b"b"]
    assert await desk.replay(LetterFilter(keys=frozenset([b"anna"]), until_ms=2000)) == 0
    assert await desk.replay(LetterFilter(keys=frozenset([b"anna"]), since_ms=2000)) == 2
    assert await desk.replay() == 1
    assert await desk.replayed() == [b"b", b"a", b"c", b"d"]


async def test_letters_of_other_groups_of_kafka_streams_and_of_nobody_stay(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"mine"])
    await desk.put([b"theirs"], group="others")
    await desk.put([b"gone"], topic="no-longer")
    streams: list[tuple[str, bytes]] = [
        ("__streams.errors.exception", b"org.shop.Refused: no"),
        ("__streams.errors.topic", desk.topic.encode()),
        ("__streams.errors.partition", b"0"),
        ("__streams.errors.offset", b"3"),
    ]
    now = desk.sent_ms
    await write(kit, TopicPartition(desk.dead, 0), [(b"k", b"s", streams, now), (b"k", b"?", (), now)])
    async with administration(kit) as broker:
        planned = await desk.plan(broker)
    assert planned.sent == {(desk.retry, "LookupError"): 1}
    assert sorted(planned.left.values()) == [1, 1, 1, 1]
    assert any("of group 'others': replay them with its engine" in why for why in planned.left)
    assert await desk.replay() == 1
    assert await desk.replayed() == [b"mine"]
    assert await desk.replay_to_original() == 1
    (record,) = await kit.read(desk.topic)
    assert (record.key, record.value, record.timestamp) == (b"k", b"s", now)


async def test_a_dry_run_changes_nothing(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b"], error_class="shop.Refused")
    await desk.put([b"c"])
    async with administration(kit) as broker:
        before = await broker.topic_names()
        lines = replay.described(await desk.plan(broker))
        assert [name for name in await broker.topic_names() if kit.unique in name] == [
            name for name in before if kit.unique in name
        ]
    assert lines == [f"  to {desk.retry}: 1 letter, LookupError", f"  to {desk.retry}: 2 letters, shop.Refused"]
    assert await desk.replayed() == []


async def test_without_its_retry_topic_a_letter_stays(kit: Kit) -> None:
    desk = await new_desk(kit, partitions=2)
    async with kit.broker() as broker:
        await broker.create_topics([TopicSpec(desk.dead, 2)])
    await desk.put([b"a"], partition=1)
    assert await desk.replay() == 0
    async with administration(kit) as broker:
        planned = await desk.plan(broker)
        assert list(planned.left) == [f"{desk.retry!r} does not exist: start the engine once, which creates it"]
        await broker.create_topics([TopicSpec(desk.retry, 1)])
        planned = await desk.plan(broker)
        assert list(planned.left) == [
            f"{desk.retry!r} has no partition 1: start the engine once, which says what is to be done"
        ]


async def test_to_the_original_topic_everybody_gets_the_message_again_as_it_was(kit: Kit) -> None:
    desk = await new_desk(kit, partitions=2)
    await desk.make_topics()
    await desk.put([b"a"], partition=1, headers=[("trace", b"7")])
    assert await desk.replay_to_original() == 1
    assert await desk.replay_to_original() == 0
    assert await desk.replay() == 0
    (record,) = await kit.read(desk.topic)
    assert (record.partition, record.key, record.value, record.timestamp) == (1, b"key", b"a", desk.sent_ms)
    assert list(record.headers) == [("trace", b"7")]


async def test_to_an_original_topic_that_is_compacted_nothing_is_replayed(kit: Kit) -> None:
    desk = Desk(kit, await kit.topic("orders", 1, cleanup_policy="compact"), 1)
    await desk.make_topics()
    await desk.put([b"a"])
    with pytest.raises(Misuse, match=r"is compacted, and an old message would take the place of a newer one"):
        await desk.replay_to_original()
    assert await desk.replay() == 1


async def test_to_the_original_topic_nothing_goes_that_retention_would_take_at_once(kit: Kit) -> None:
    desk = Desk(kit, await kit.topic("orders", 1, retention_ms="3600000"), 1)
    await desk.make_topics()
    await desk.put([b"old"], timestamp_ms=desk.sent_ms - 3_600_000)
    await desk.put([b"new"], first=1)
    async with administration(kit) as broker:
        planned = await desk.plan(broker, way=ToOriginal)
    assert planned.left == {f"older than what {desk.topic!r} keeps: they would be deleted at once": 1}
    assert await desk.replay_to_original() == 1
    assert values(await kit.read(desk.topic)) == [b"new"]


async def test_letters_of_a_topic_that_was_made_anew_were_not_replayed(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a"])
    assert await desk.replay() == 1
    async with kit.broker() as broker:
        await broker.delete_topics([desk.dead])
    await desk.make_topics()
    await desk.put([b"b"])
    assert await desk.replay() == 1
    assert await desk.replayed() == [b"a", b"b"]


class Interrupted(Exception):
    """Somebody has ended the command."""


class InterruptedBroker:
    """A broker to which a command speaks until it is ended: before it has asked once too often, or just after.

    What it reads is not counted: that changes nothing.
    """

    def __init__(self, broker: Administration, requests: int, *, is_after: bool) -> None:
        self._broker = broker
        self._left = requests
        self._is_after = is_after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def create_topics(self, *arguments: Any) -> None:
        await self._counted(self._broker.create_topics, *arguments)

    async def delete_records(self, *arguments: Any) -> None:
        await self._counted(self._broker.delete_records, *arguments)

    def transactional_producer(self, *arguments: Any) -> Any:
        return InterruptedProducer(self._broker.transactional_producer(*arguments), self._counted)

    async def _counted(self, method: Any, *arguments: Any) -> Any:
        if self._left == 0 and not self._is_after:
            raise Interrupted
        answer = await method(*arguments)
        if self._left == 0:
            raise Interrupted
        self._left -= 1
        return answer


class InterruptedProducer:
    """Its transaction stays open: who was killed does not abort it."""

    def __init__(self, producer: Any, counted: Any) -> None:
        self._producer = producer
        self._counted = counted
        self.stop = producer.stop

    async def start(self) -> None:
        await self._counted(self._producer.start)

    async def send(self, *arguments: Any) -> Any:
        return await self._counted(self._acknowledged, *arguments)

    async def commit(self, *arguments: Any) -> None:
        await self._counted(self._producer.commit, *arguments)

    async def abort(self) -> None:
        """Nobody is there to do it."""

    async def _acknowledged(self, *arguments: Any) -> Any:
        acks = await self._producer.send(*arguments)
        for ack in acks:
            await ack
        return acks


REQUESTS = 8
"""How many a replay of two chunks makes: it creates the ledger, and begins as the only one; and for each chunk it sends
the letters, then the entry, and commits."""


async def interrupted(desk: Desk, requests: int, *, is_after: bool) -> None:
    async with administration(desk.kit) as broker:
        planned = await desk.plan(broker)
        speaks = InterruptedBroker(broker, requests, is_after=is_after)
        with pytest.raises(Interrupted):
            await replay.carry_out(planned, cast(Administration, speaks))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_CHUNK_LETTERS", 2)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("requests", range(REQUESTS))
async def test_whenever_a_replay_is_killed_the_next_one_sends_what_is_missing_and_nothing_twice(
    kit: Kit, requests: int, is_after: bool
) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b", b"c"])
    await interrupted(desk, requests, is_after=is_after)
    await desk.replay()
    assert await desk.replayed() == [b"a", b"b", b"c"]
    assert await desk.replay() == 0


@pytest.mark.usefixtures("small_chunks")
async def test_a_replay_asks_no_more_than_that(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b", b"c"])
    async with administration(kit) as broker:
        speaks = InterruptedBroker(broker, REQUESTS, is_after=False)
        await replay.carry_out(await desk.plan(broker), cast(Administration, speaks))
        await desk.until_visible(broker)
    assert await desk.replayed() == [b"a", b"b", b"c"]


@pytest.mark.usefixtures("small_chunks")
async def test_a_replay_that_is_killed_while_it_makes_good_for_one_that_was_killed_is_made_good_for(kit: Kit) -> None:
    if not kit.bootstrap.startswith("memory:"):
        pairs = [(3, 2), (6, 3)]
    else:
        pairs = [(one, two) for one in range(REQUESTS) for two in range(REQUESTS + 1 - one)]
    for one, two in pairs:
        for is_after in (False, True):
            desk = Desk(kit, f"{await kit.topic(f'orders-{one}-{two}-{is_after}')}", 1)
            await desk.make_topics()
            await desk.put([b"a", b"b", b"c"])
            await interrupted(desk, one, is_after=is_after)
            async with administration(kit) as broker:
                planned = await desk.plan(broker)
                speaks = InterruptedBroker(broker, two, is_after=is_after)
                with suppress(Interrupted):
                    await replay.carry_out(planned, cast(Administration, speaks))
            await desk.replay()
            assert await desk.replayed() == [b"a", b"b", b"c"], (one, two, is_after)
            assert await desk.replay() == 0


async def test_filters_that_change_after_a_kill_lose_and_repeat_nothing(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b", b"c", b"d"])
    odd = LetterFilter(offsets=(Offsets(0, 1, 1), Offsets(0, 3, 3)))
    async with administration(kit) as broker:
        planned = await desk.plan(broker, odd)
        speaks = InterruptedBroker(broker, 4, is_after=True)
        with pytest.raises(Interrupted):
            await replay.carry_out(planned, cast(Administration, speaks))
        await desk.until_visible(broker)
    assert await desk.replayed() == [b"b", b"d"]
    assert await desk.replay() == 2
    assert await desk.replayed() == [b"b", b"d", b"a", b"c"]


async def test_of_two_replays_at_once_no_letter_goes_twice_and_the_first_one_ends(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_CHUNK_LETTERS", 1)
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b", b"c"])
    sent, ended = asyncio.Event(), asyncio.Event()
    async with administration(kit) as broker, administration(kit) as elsewhere:
        planned, other = await desk.plan(broker), await desk.plan(elsewhere)
        slow = cast(Administration, SlowBroker(broker, sent, ended))
        first = asyncio.create_task(replay.carry_out(planned, slow))
        await sent.wait()
        await replay.carry_out(other, elsewhere)
        ended.set()
        with pytest.raises(ProducerFenced, match=r"Somebody else has begun to replay .* run this one again if"):
            await first
        await desk.until_visible(broker)
    assert await desk.replayed() == [b"a", b"b", b"c"]
    assert await desk.replay() == 0


class SlowBroker:
    """A broker whose second commit of a transaction waits."""

    def __init__(self, broker: Administration, waits: asyncio.Event, goes_on: asyncio.Event) -> None:
        self._broker = broker
        self._waits = waits
        self._goes_on = goes_on

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def transactional_producer(self, *arguments: Any) -> Any:
        producer: Any = self._broker.transactional_producer(*arguments)
        commit, commits = producer.commit, itertools.count(1)

        async def slow_commit(*arguments: Any) -> None:
            if next(commits) == 2:
                self._waits.set()
                await self._goes_on.wait()
            await commit(*arguments)

        producer.commit = slow_commit
        return producer


async def test_a_plan_that_has_grown_old_repeats_nothing(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b"])
    async with administration(kit) as broker:
        planned = await desk.plan(broker)
        assert await desk.replay() == 2
        await replay.carry_out(planned, broker)
        await desk.until_visible(broker)
    assert await desk.replayed() == [b"a", b"b"]


async def test_a_record_that_the_retry_topic_does_not_take_is_said_and_the_rest_can_go(kit: Kit) -> None:
    desk = await new_desk(kit)
    async with kit.broker() as broker:
        await broker.create_topics(
            [TopicSpec(desk.dead, 1), TopicSpec(desk.retry, 1, config={"max.message.bytes": "5000"})]
        )
    await desk.put([b"a"])
    await desk.put([bytes(9000)], first=1)
    with pytest.raises(BrokerError):
        await desk.replay()
    assert await desk.replay(LetterFilter(offsets=(Offsets(0, 0, 0),))) == 1
    assert await desk.replayed() == [b"a"]


async def test_a_replay_that_fails_holds_up_nobody_who_reads_where_it_has_sent_to(kit: Kit) -> None:
    desk = await new_desk(kit, partitions=2)
    async with kit.broker() as broker:
        await broker.create_topics(
            [TopicSpec(desk.dead, 1), TopicSpec(desk.retry, 2, config={"max.message.bytes": "5000"})]
        )
    letters = [desk.letter(b"a", 0, 0), desk.letter(bytes(9000), 1, 0)]
    await write(kit, TopicPartition(desk.dead, 0), letters)
    with pytest.raises(BrokerError):
        await desk.replay()
    await kit.send(desk.retry, [(b"key", b"by hand")], 0)
    async with asyncio.timeout(10):
        while not (found := await desk.replayed()):
            pass
    assert found == [b"by hand"]


async def test_an_entry_of_a_later_version_is_not_guessed_at(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a"])
    assert await desk.replay() == 1
    ledger = f"{kit.group}-{desk.dead}-replayed"
    for value, why in ((b'{"format": 2}', "of format 2.*upgrade it"), (b"?", "that no replay has written")):
        await kit.send(ledger, [(b"key", value)])
        with pytest.raises(LedgerError, match=why):
            await desk.replay()


async def test_the_ledger_holds_a_line_for_each_chunk(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b", b"c", b"d"])
    assert await desk.replay(LetterFilter(offsets=(Offsets(0, 0, 1), Offsets(0, 3)))) == 3
    (entry,) = await desk.ledger()
    async with kit.broker() as broker:
        dead = (await broker.describe_topics([desk.dead]))[desk.dead]
    said = {"format": 1, "topic_id": dead.id, "partition": 0, "letters": [[0, 2], [3, 4]]}
    assert json.loads(entry.value) == said


async def test_a_purge_deletes_letters_up_to_the_first_that_stays(kit: Kit) -> None:
    desk = await new_desk(kit, partitions=2)
    await desk.make_topics()
    await desk.put([b"a", b"b"], last_ms=1000)
    await desk.put([b"c"], last_ms=3000)
    await desk.put([b"d"], last_ms=1000)
    await desk.put([b"e"], partition=1, last_ms=1000, group="others")
    planned = await desk.purge(LetterFilter(until_ms=2000))
    assert (planned.gone, planned.held_up) == ({kit.group: 2, "others": 1}, 1)
    assert values(await kit.read(desk.dead)) == [b"c", b"d"]
    assert (await desk.purge(LetterFilter(offsets=(Offsets(0, 0, 2),)))).letters == 1
    assert values(await kit.read(desk.dead)) == [b"d"]
    assert (await desk.purge()).letters == 1
    assert await kit.read(desk.dead) == []
    assert (await desk.purge()).letters == 0


async def test_a_purge_of_what_was_replayed_leaves_the_rest_and_what_is_noted_of_it(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b", b"c", b"d"])
    assert await desk.replay(LetterFilter(offsets=(Offsets(0, 0, 1),))) == 2
    assert await desk.replay(LetterFilter(offsets=(Offsets(0, 3, 3),))) == 1
    planned = await desk.purge(only_replayed=True)
    assert (planned.letters, planned.held_up) == (2, 1)
    assert values(await kit.read(desk.dead)) == [b"c", b"d"]
    ledger: dict[bytes, bytes | None] = {record.key: record.value for record in await desk.ledger()}
    assert [json.loads(value)["letters"] for value in ledger.values() if value is not None] == [[[3, 4]]]
    assert await desk.replay() == 1
    assert await desk.replayed() == [b"a", b"b", b"d", b"c"]
    assert (await desk.purge(only_replayed=True)).letters == 2


async def test_a_purge_of_a_part_of_what_was_replayed_together_leaves_the_rest_noted(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a", b"b"])
    assert await desk.replay() == 2
    assert (await desk.purge(LetterFilter(offsets=(Offsets(0, 0, 0),)))).letters == 1
    assert await desk.replay() == 0


async def test_a_purge_that_is_interrupted_before_it_has_deleted_forgets_nothing(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"a"])
    assert await desk.replay() == 1
    async with administration(kit) as broker:
        topic = (await broker.describe_topics([desk.dead]))[desk.dead]
        planned = await purge.plan(kit.group, topic, LetterFilter(), broker)
        speaks = InterruptedBroker(broker, 0, is_after=False)
        with pytest.raises(Interrupted):
            await purge.carry_out(planned, cast(Administration, speaks))
    assert await desk.replay() == 0


async def test_to_the_original_way_other_groups_letters_stay(kit: Kit) -> None:
    desk = await new_desk(kit)
    await desk.make_topics()
    await desk.put([b"theirs"], group="others")
    await desk.put([b"nowhere"], topic=f"gone-{kit.unique}")
    async with administration(kit) as broker:
        planned = await desk.plan(broker, way=ToOriginal)
    assert sorted(planned.left) == [
        f"gone-{kit.unique}[0] does not exist any more",
        "of group 'others': replay them with its engine",
    ]


def values(records: list[Record]) -> list[bytes]:
    return [record.value for record in records]
