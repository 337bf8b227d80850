"""Making a task's finished work durable."""

import asyncio
from collections.abc import Mapping, Sequence

from paperboy.brokers.protocol import Ack, Broker, Consumer, Outgoing, Producer, TopicPartition
from paperboy.engine.reclaim import reclaim
from paperboy.engine.stores import TaskTable
from paperboy.errors import BrokerError, NotOwner
from paperboy.tables.partition import Layer, changelog_values

_SLICE = 4_000
"""Changed keys that are encoded before the loop gets its turn."""


class Checkpoint:
    """One attempt, at a message boundary, at making a task's finished work durable. The steps, in their order:

    1. swap each table's layer for a new one (here, in the constructor: the task goes on at once);
    2. write the last value of each changed key to the changelog (outputs were flushed just before);
    3. wait for every ack, of outputs and of changelog records; where those say that somebody else has written between,
       reclaim the changelog;
    4. write the changes and the changelog offset they reach to each store, atomically;
    5. commit the input positions;
    6. report (`commit_error`, `changed_keys`, and what a table's ``on_change`` wants to hear).

    Ownership is asked for before 2 (of the group itself), 4 and 5. If 2 to 4 fail, the swapped layers are of no use any
    more: the task drops its work and goes back to what is durable. If only 5 fails, the next checkpoint commits.

    Args:
        tables: the task's tables and their changelogs.
        positions: for each input partition, the offset below which everything is finished; only what has moved.
        outputs: acks to wait for.
        generation: the assignment this belongs to.
    """

    def __init__(
        self,
        tables: Sequence[TaskTable],
        positions: Mapping[TopicPartition, int],
        outputs: Sequence["asyncio.Future[Ack]"],
        broker: Broker,
        consumer: Consumer,
        producer: Producer,
        generation: int,
    ) -> None:
        self.positions = positions
        self.commit_error: BrokerError | None = None
        """Why step 5 failed, if it alone did."""
        self.changed_keys = 0
        self._outputs = outputs
        self._broker = broker
        self._consumer = consumer
        self._producer = producer
        self._generation = generation
        self._layers: list[tuple[TaskTable, Layer]] = [
            (table, table.partition.freeze()) for table in tables if table.partition.layer
        ]

    async def run(self) -> None:
        """Steps 2 to 6.

        Raises:
            NotOwner: the assignment is over; nothing more may be written.
            BrokerError: step 2 or 3 failed.
            StoreError: step 4 failed.
        """
        if self._layers:
            # A process that stood still would believe it owns the task, and write old values over the new owner's.
            await self._consumer.confirm(self._generation)
        self._check_owned()
        now_ms = self._broker.clock.time_ms()
        written = []
        for table, layer in self._layers:  # 2
            changes = await encoded(layer)
            records: list[Outgoing] = [(key, value, (), now_ms) for key, value in changes.items()]
            acks = await self._producer.send(table.changelog, records)
            written.append((table, changes, acks))
            self.changed_keys += len(changes)
        waiting = [*self._outputs, *(ack for _, _, acks in written for ack in acks)]  # 3
        if waiting:
            await asyncio.wait(waiting)
        for ack in waiting:
            ack.result()
        reached = [await self._reached(table, changes, acks) for table, changes, acks in written]
        self._check_owned()
        for (table, changes, _), offset in zip(written, reached, strict=True):  # 4
            table.partition.store.write(changes, offset, now_ms)
            table.partition.thaw()
        try:
            await self._commit()  # 5
        finally:
            await report_changes(self._layers)  # 6: they are durable, whoever owns the task now

    async def _reached(
        self, table: TaskTable, changes: Mapping[bytes, bytes | None], acks: Sequence["asyncio.Future[Ack]"]
    ) -> int:
        """The changelog offset behind the batches just written, which must stand right behind what the store knows."""
        expected = table.partition.store.changelog_offset or 0
        for future in acks:
            base_offset, records = future.result()
            if base_offset != expected:
                return await reclaim(table, changes, self._broker, self._consumer, self._producer, self._generation)
            expected += records
        return expected

    async def _commit(self) -> None:
        if not self.positions:
            return
        self._check_owned()
        try:
            await self._consumer.commit(self.positions, self._generation)
        except NotOwner:
            raise
        except BrokerError as error:
            self.commit_error = error  # the same or later positions are committed next time

    def _check_owned(self) -> None:
        if not self._consumer.owns(self._generation):
            raise NotOwner("The assignment this checkpoint belongs to is over.")


async def encoded(layer: Layer) -> dict[bytes, bytes | None]:
    """A layer's changes in bytes, with turns of the loop between slices of them."""
    if len(layer) <= _SLICE:
        return changelog_values(layer)
    changes: dict[bytes, bytes | None] = {}
    keys = list(layer)
    for start in range(0, len(keys), _SLICE):
        changes.update(changelog_values({key: layer[key] for key in keys[start : start + _SLICE]}))
        await asyncio.sleep(0)
    return changes


async def report_changes(layers: Sequence[tuple[TaskTable, Layer]]) -> None:
    """Tell each table's ``on_change`` what is durable now."""
    for table, layer in layers:
        on_change = table.partition.on_change
        if on_change is None:
            continue
        for number, change in enumerate(table.partition.changes(layer), 1):
            on_change(change)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
