"""A task's own word against what somebody else has written to its changelog."""

from collections.abc import Mapping

from paperboy.brokers.protocol import Broker, Consumer, Outgoing, Producer
from paperboy.engine.changelogs import gone, is_another
from paperboy.engine.silence import Silence
from paperboy.engine.stores import TaskTable
from paperboy.errors import BrokerError, OffsetOutOfRange
from paperboy.log import get_logger

_log = get_logger("paperboy.checkpoint")

_FETCH_TIMEOUT_SEC = 0.1


class ForeignWrite(BrokerError):
    """Somebody else goes on writing to a changelog of this task's."""


async def reclaim(
    table: TaskTable,
    changes: Mapping[bytes, bytes | None],
    broker: Broker,
    consumer: Consumer,
    producer: Producer,
    generation: int,
) -> int:
    """Make the changelog say what the table holds, after records landed in it that its store knows nothing of.

    They come from a worker that had lost this task and did not know it yet, or from a batch of our own that was
    believed to have failed: nothing that the committed input has caused. Where they say something else than the store,
    with `changes` over it, the table's own value is written again behind them.

    Returns:
        The changelog offset at which log and table agree.

    Raises:
        NotOwner: it is us who have lost the task.
        ForeignWrite: somebody wrote again meanwhile.
        OffsetOutOfRange: the changelog does not go on from where the store stands.
        BrokerError: the changelog cannot be read or written.
    """
    await _check_same(table, broker)
    said, end = await _since(table, broker)
    await consumer.confirm(generation)
    store = table.partition.store
    unchanged = [key for key in said if key not in changes]
    ours = {**changes, **dict(zip(unchanged, store.get_many(unchanged), strict=True))}
    wrong: list[Outgoing] = [
        (key, ours[key], (), broker.clock.time_ms()) for key, value in said.items() if ours[key] != value
    ]
    if said:
        _log.warning(
            "changelog reclaimed",
            table=table.partition.table,
            changelog=str(table.changelog),
            from_offset=store.changelog_offset,
            to_offset=end,
            keys=len(wrong),
        )
    for future in await producer.send(table.changelog, wrong) if wrong else ():
        base_offset, records = await future
        if base_offset != end:
            where = "an unknown offset" if base_offset < 0 else f"offset {base_offset}"
            raise ForeignWrite(
                f"A batch of changelog {table.changelog} landed at {where}, where table {table.partition.table!r}"
                f" expected {end}: somebody else goes on writing to it, or a retry hid where it stands."
            )
        end += records
    return end


async def _check_same(table: TaskTable, broker: Broker) -> None:
    """A changelog that was made anew may have come as far as the store, and says nothing of what that holds."""
    changelog = table.changelog
    found = (await broker.describe_topics([changelog.topic])).get(changelog.topic)
    if found is None:
        raise gone(changelog.topic, table.partition.table)
    if is_another(table.held.changelog_id, found.id):
        raise OffsetOutOfRange(
            f"Changelog {changelog} of table {table.partition.table!r} was made anew: it does not go on from where the"
            " table stands.",
            *changelog,
            table.partition.store.changelog_offset or 0,
        )


async def _since(table: TaskTable, broker: Broker) -> tuple[dict[bytes, bytes | None], int]:
    """The last value of each key that the changelog holds beyond the store, and where it ends."""
    changelog = table.changelog
    start = table.partition.store.changelog_offset or 0
    end = (await broker.end_offsets([changelog]))[changelog]
    said: dict[bytes, bytes | None] = {}
    if start == end:
        return said, end
    if start > end:
        raise OffsetOutOfRange(
            f"Table {table.partition.table!r} stands at offset {start} of changelog {changelog}, which ends at {end}:"
            " records were deleted from it, or it was made anew.",
            *changelog,
            start,
        )
    reader = broker.reader()
    try:
        await reader.start({changelog: start})
        silence = Silence(reader, {changelog: end}, broker)
        while reader.position(changelog) < end:
            for record in (await reader.fetch([changelog], _FETCH_TIMEOUT_SEC)).get(changelog, ()):
                if record.offset < end and record.key:
                    said[record.key] = record.value
            await silence.listen()
    finally:
        await reader.stop()
    return said, end
