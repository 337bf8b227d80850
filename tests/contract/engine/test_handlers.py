"""What a handler sees, in which order, and what becomes of it when it fails."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from paperboy import BulkHandler, DeserializationError, Handler, PaperboyError, SerializationError, TopicNotFound
from tests.contract.engine.kit import Kit, until


async def test_every_message_reaches_its_handler_in_order(kit: Kit) -> None:
    source = await kit.topic("numbers")
    await kit.send_values(source, *[b"%d" % number for number in range(100)])
    seen: list[Any] = []

    class Numbers(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append((msg.value, ctx.topic, ctx.partition, ctx.offset))

    async with kit.engine(Numbers) as engine:
        await engine.caught_up()

    assert seen == [(b"%d" % number, source, 0, number) for number in range(100)]
    assert await kit.committed(source) == 100


async def test_the_hooks_of_a_message_run_in_order_and_share_one_context(kit: Kit) -> None:
    source = await kit.topic("hooks")
    await kit.send(source, [(b"a", b"1"), (b"a", None)])
    calls: list[Any] = []

    class Hooks(Handler):
        topic = source

        @classmethod
        async def define_context(cls):
            return {"fresh": True}

        @classmethod
        async def did_receive_message(cls, msg, ctx):
            calls.append(("received", dict(ctx)))
            ctx["seen"] = msg.offset
            return msg

        @classmethod
        async def on_message(cls, msg, ctx):
            calls.append(("message", dict(ctx)))

        @classmethod
        async def on_tombstone(cls, msg, ctx):
            calls.append(("tombstone", dict(ctx)))

        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            calls.append(("finished", msgs.offset))

    async with kit.engine(Hooks) as engine:
        await engine.caught_up()

    assert calls == [
        ("received", {"fresh": True}),
        ("message", {"fresh": True, "seen": 0}),
        ("finished", 0),
        ("received", {"fresh": True}),
        ("tombstone", {"fresh": True, "seen": 1}),
        ("finished", 1),
    ]


async def test_keys_and_values_are_decoded_by_the_handlers_serializers(kit: Kit) -> None:
    source = await kit.topic("decoded")
    await kit.send(source, [(b"k", b"41"), (None, None)])
    seen: list[Any] = []

    class Decoded(Handler):
        topic = source
        key_serializer = lambda data: data.decode()  # noqa: E731
        value_deserializer = int

        @classmethod
        async def on_message(cls, msg, ctx):
            seen.append((msg.key, msg.value))

        @classmethod
        async def on_tombstone(cls, msg, ctx):
            seen.append((msg.key, msg.value))

    async with kit.engine(Decoded()) as engine:
        await engine.caught_up()

    assert seen == [("k", 41), (None, None)]


async def test_a_handler_can_be_an_instance_with_its_dependencies(kit: Kit) -> None:
    source = await kit.topic("instance")
    await kit.send_values(source, b"x")

    class Instance(Handler):
        topic = source

        def __init__(self, seen: list[bytes]) -> None:
            self.seen = seen

        async def on_message(self, msg, ctx):  # type: ignore[override]
            self.seen.append(msg.value)

    seen: list[bytes] = []
    async with kit.engine(Instance(seen)) as engine:
        await engine.caught_up()
    assert seen == [b"x"]


async def test_a_failing_message_stops_the_engine_and_is_not_committed(kit: Kit) -> None:
    source = await kit.topic("failing")
    await kit.send_values(source, b"good", b"bad", b"never")

    class Failing(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"bad":
                raise ValueError("cannot")

    with pytest.raises(ValueError, match="cannot") as caught:
        await kit.engine(Failing).start()
    assert caught.value.__notes__ == [f"While handling {source}[0] offset 1."]
    assert await kit.committed(source) == 1


async def test_without_fail_on_exception_a_failing_message_is_passed_over_and_counted(kit: Kit) -> None:
    source = await kit.topic("passing")
    await kit.send_values(source, b"bad", b"good")
    seen = []

    class Passing(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"bad":
                raise ValueError("cannot")
            seen.append(msg.value)

    engine = kit.engine(Passing, fail_on_exception=False)
    async with engine:
        await engine.caught_up()
        assert engine.status().passed_over == 1
    assert seen == [b"good"]
    assert await kit.committed(source) == 2


@pytest.mark.parametrize("answer", ["none", "same", "another"])
async def test_on_error_has_the_last_word(kit: Kit, answer: str) -> None:
    source = await kit.topic("deciding")
    await kit.send_values(source, b"bad", b"good")
    seen: list[Any] = []

    class Deciding(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"bad":
                raise ValueError("cannot")
            seen.append(msg.value)

        @classmethod
        async def on_error(cls, e, msg, ctx):
            seen.append((repr(e), msg.value))
            return {"none": None, "same": e, "another": KeyError("instead")}[answer]

    engine = kit.engine(Deciding, stop_at_end=True)
    if answer == "none":
        await engine.start()
        assert seen == [("ValueError('cannot')", b"bad"), b"good"]
    else:
        with pytest.raises(ValueError if answer == "same" else KeyError):
            await engine.start()
        assert seen == [("ValueError('cannot')", b"bad")]


async def test_a_record_that_cannot_be_decoded_names_topic_partition_and_offset(kit: Kit) -> None:
    source = await kit.topic("poison")
    await kit.send_values(source, b"not a number")

    class Poison(Handler):
        topic = source
        value_serializer = int

    with pytest.raises(DeserializationError, match=rf"value of {source}\[0\] offset 0 .*Poison\.value_serializer"):
        await kit.engine(Poison).start()


async def test_what_a_failed_message_sent_is_not_sent(kit: Kit) -> None:
    source, target = await kit.topic("sending"), await kit.topic("sent")
    await kit.send_values(source, b"good", b"bad", b"good too")

    class Sending(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            await ctx.send(target, msg.value, key=b"k", headers=[("h", b"1"), ("h", b"2")])
            if msg.value == b"bad":
                raise ValueError("after sending")

        @classmethod
        async def on_error(cls, e, msg, ctx):
            ctx.send(target, b"failed: " + msg.value)

    async with kit.engine(Sending) as engine:
        await engine.caught_up()
    records = await kit.read(target)
    assert [record.value for record in records] == [b"good", b"failed: bad", b"good too"]
    assert [tuple(record.headers) for record in records] == [(("h", b"1"), ("h", b"2")), (), (("h", b"1"), ("h", b"2"))]


async def test_what_is_sent_is_bytes_or_needs_a_serializer(kit: Kit) -> None:
    source, target = await kit.topic("objects"), await kit.topic("objects-target")
    await kit.send_values(source, b"x")
    refused: list[str] = []

    class Objects(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            ctx.send(
                target, {"n": 1}, key="k", serializer=lambda value: repr(value).encode(), key_serializer=str.encode
            )
            ctx.send(target, None, key=b"k", serializer=str.encode)
            for arguments in (
                {"value": "text"},
                {"value": 1, "serializer": str.encode},
                {"value": 1, "serializer": str},
            ):
                with pytest.raises(SerializationError) as caught:
                    ctx.send(target, **arguments)
                refused.append(str(caught.value))

    async with kit.engine(Objects) as engine:
        await engine.caught_up()
        await engine.send(target, 7, key="k", serializer=lambda value: b"%d" % value, key_serializer=str.encode)
    assert [(record.key, record.value) for record in await kit.read(target)] == [
        (b"k", b"{'n': 1}"),
        (b"k", None),
        (b"k", b"7"),
    ]
    assert [sentence.removeprefix(f"The value sent to topic {target!r} ")[:36] for sentence in refused[:2]] == [
        "is str, not bytes or None: encode it",
        'could not be serialized: TypeError("',
    ]
    assert refused[2] == f"The serializer of the value sent to topic {target!r} made str of it, not bytes."


async def test_a_send_after_the_message_has_ended_raises(kit: Kit) -> None:
    source, target = await kit.topic("late"), await kit.topic("late-target")
    await kit.send_values(source, b"x")
    contexts = []

    class Late(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            contexts.append(ctx)

    async with kit.engine(Late) as engine:
        await engine.caught_up()
        with pytest.raises(PaperboyError, match=r"after its message .* had ended"):
            contexts[0].send(target, b"too late")
    assert await kit.read(target) == []


async def test_sending_to_a_topic_that_does_not_exist_fails_the_message(kit: Kit) -> None:
    source = await kit.topic("to-nowhere")
    await kit.send_values(source, b"x")

    class ToNowhere(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            ctx.send("nowhere", b"y")

    with pytest.raises(TopicNotFound, match=r"'nowhere'.*create it"):
        await kit.engine(ToNowhere).start()
    assert await kit.committed(source) == 0


async def test_a_slow_handler_in_one_partition_does_not_hold_up_another(kit: Kit) -> None:
    source = await kit.topic("slow", partitions=2)
    await kit.send_values(source, b"slow", partition=0)
    await kit.send_values(source, b"quick", b"quick", partition=1)
    release, quick = asyncio.Event(), []

    class Slow(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            if msg.value == b"slow":
                await release.wait()
            else:
                quick.append(msg.value)

    async with kit.engine(Slow) as engine:
        await until(lambda: len(quick) == 2)
        await kit.send_values(source, b"quick", partition=1)
        await until(lambda: len(quick) == 3)
        release.set()
        await engine.caught_up()


async def test_the_loop_gets_its_turn_though_no_handler_ever_waits(kit: Kit) -> None:
    source = await kit.topic("busy")
    await kit.send_values(source, *[b"x"] * 200)
    loop = asyncio.get_running_loop()
    turns: list[float] = []
    done = []

    class Busy(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            until_then = loop.time() + 0.004
            while loop.time() < until_then:
                pass
            done.append(loop.time())

    async def watch() -> None:
        while len(done) < 200:
            turns.append(loop.time())
            await asyncio.sleep(0)

    async with kit.engine(Busy) as engine:
        watching = asyncio.create_task(watch())
        await engine.caught_up()
        await watching
    waits = [later - earlier for earlier, later in pairwise(turns) if later > done[0]]
    assert len(done) == 200
    assert max(waits) < 0.05 + 0.1  # 50 ms, and what a shared machine adds


async def test_a_bulk_handler_gets_lists_when_lag_is_high_and_bulks_of_one_when_it_is_low(kit: Kit) -> None:
    source = await kit.topic("bulk")
    await kit.send_values(source, *[b"x"] * 50)
    bulks: list[int] = []
    finished: list[int] = []

    class Bulk(BulkHandler):
        topic = source

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            bulks.append(len(msgs))

        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            finished.append(len(msgs))

    async with kit.engine(Bulk, bulk_mode_threshold=20, bulk_mode_max_records=20) as engine:
        await engine.caught_up()
        assert bulks == [20, 20, 10]
        await kit.send_values(source, b"y", b"z")
        await engine.caught_up()
    assert bulks == [20, 20, 10, 1, 1]
    assert finished == bulks


async def test_a_failed_bulk_is_not_committed(kit: Kit) -> None:
    source, target = await kit.topic("bad-bulk"), await kit.topic("bad-bulk-target")
    await kit.send_values(source, *[b"%d" % number for number in range(30)])

    class BadBulk(BulkHandler):
        topic = source

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            ctx.send(target, msgs[0].value)
            if msgs[0].offset == 10:
                raise ValueError("this bulk")

    with pytest.raises(ValueError, match="this bulk") as caught:
        await kit.engine(BadBulk, bulk_mode_threshold=5, bulk_mode_max_records=10).start()
    assert caught.value.__notes__ == [f"While handling {source}[0] offsets 10 to 19."]
    assert await kit.committed(source) == 10
    assert [record.value for record in await kit.read(target)] == [b"0"]


async def test_on_bulk_error_answering_none_passes_over_the_bulk(kit: Kit) -> None:
    source = await kit.topic("forgiving")
    await kit.send_values(source, *[b"%d" % number for number in range(30)])
    seen: list[int] = []

    class Forgiving(BulkHandler):
        topic = source

        @classmethod
        async def on_bulk(cls, msgs, ctx):
            if msgs[0].offset == 10:
                raise ValueError("this bulk")
            seen.extend(msg.offset for msg in msgs)

        @classmethod
        async def on_bulk_error(cls, e, msgs, ctx):
            return None

    engine = kit.engine(Forgiving, bulk_mode_threshold=5, bulk_mode_max_records=10)
    async with engine:
        await engine.caught_up()
        assert engine.status().passed_over == 10
    assert seen == [*range(10), *range(20, 30)]


async def test_in_bulk_a_plain_handler_runs_message_by_message_and_finishes_with_the_list(kit: Kit) -> None:
    source = await kit.topic("plain-bulk")
    await kit.send_values(source, *[b"x"] * 12)
    calls: list[Any] = []

    class Plain(Handler):
        topic = source

        @classmethod
        async def on_message(cls, msg, ctx):
            calls.append(msg.offset)

        @classmethod
        async def on_finished_handling(cls, msgs, ctx):
            calls.append([msg.offset for msg in msgs])

    async with kit.engine(Plain, bulk_mode_threshold=5, bulk_mode_max_records=12) as engine:
        await engine.caught_up()
    assert calls == [*range(12), [*range(12)]]
