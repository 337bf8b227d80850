"""Making a task's finished work durable, and visible, exactly once."""

import asyncio
from collections.abc import Mapping, Sequence

from paperboy.brokers.protocol import Ack, Broker, Consumer, Outgoing, TopicPartition, TransactionalProducer
from paperboy.engine.checkpoint import encoded, report_changes
from paperboy.engine.stores import TaskTable
from paperboy.errors import BrokerError, NotOwner
from paperboy.tables.partition import Layer


class TransactionCheckpoint:
    """One attempt, at a message boundary, with the steps of a `Checkpoint`, of which 2, 3 and 5 are one transaction:

    1. swap each table's layer for a new one (here, in the constructor: the task goes on at once, and what it sends
       belongs to the next transaction);
    2. write the last value of each changed key to the changelog (outputs are in the transaction already);
    3. wait for every ack;
    5. commit, with the input positions;
    4. write the changes and the changelog offset they reach to each store, atomically;
    6. report.

    Nobody else can have written in between: beginning anew under the task's transactional id has fenced whoever had it.
    Whatever fails, the task begins anew, which settles the outcome, and goes back to what is durable: a store that had
    not been written to when the transaction was committed reads the changelog.

    Args: as `Checkpoint`.
    """

    def __init__(
        self,
        tables: Sequence[TaskTable],
        positions: Mapping[TopicPartition, int],
        outputs: Sequence["asyncio.Future[Ack]"],
        broker: Broker,
        consumer: Consumer,
        producer: TransactionalProducer,
        generation: int,
        group_id: str,
    ) -> None:
        self.positions = positions
        self.commit_error: BrokerError | None = None
        """Always None: a commit that fails takes everything with it."""
        self.changed_keys = 0
        self._outputs = outputs
        self._broker = broker
        self._consumer = consumer
        self._producer = producer
        self._generation = generation
        self._group_id = group_id
        self._layers: list[tuple[TaskTable, Layer]] = [
            (table, table.partition.freeze()) for table in tables if table.partition.layer
        ]

    async def run(self) -> None:
        """Steps 2 to 6.

        Raises:
            NotOwner: the assignment is over; nothing more may be written.
            BrokerError: the transaction failed, or its outcome is not known.
            StoreError: step 4 failed.
        """
        self._check_owned()
        now_ms = self._broker.clock.time_ms()
        written = []
        for table, layer in self._layers:  # 2
            changes = await encoded(layer)
            records: list[Outgoing] = [(key, value, (), now_ms) for key, value in changes.items()]
            written.append((table, changes, await self._producer.send(table.changelog, records)))
            self.changed_keys += len(changes)
        waiting = [*self._outputs, *(ack for _, _, acks in written for ack in acks)]  # 3
        if waiting:
            await asyncio.wait(waiting)
        for ack in waiting:
            ack.result()
        reached = [_reached(table, acks) for table, _, acks in written]
        self._check_owned()
        await self._producer.commit(self._group_id, self.positions)  # 5
        for (table, changes, _), offset in zip(written, reached, strict=True):  # 4
            table.partition.store.write(changes, offset, now_ms)
            table.partition.thaw()
        await report_changes(self._layers)  # 6

    def _check_owned(self) -> None:
        if not self._consumer.owns(self._generation):
            raise NotOwner("The assignment this checkpoint belongs to is over.")


def _reached(table: TaskTable, acks: Sequence["asyncio.Future[Ack]"]) -> int:
    """The changelog offset behind the batches just written."""
    first, (base_offset, records) = acks[0].result().base_offset, acks[-1].result()
    if 0 <= first < (table.partition.store.changelog_offset or 0):
        raise BrokerError(
            f"Changelog {table.changelog} of table {table.partition.table!r} is shorter than its store knows it: it was"
            " made anew."
        )
    if base_offset < 0:  # the broker knows the batch, but not where it stands
        raise BrokerError(f"Where the last batch stands in changelog {table.changelog} is not known: it is read again.")
    return base_offset + records


async def fence(broker: Broker, transactional_id: str, timeout_sec: float) -> None:
    """End what any producer of this id has under way, and let it do nothing more.

    Raises:
        BrokerError: the broker refuses, or does not answer.
    """
    producer = broker.transactional_producer(transactional_id, timeout_sec)
    try:
        await producer.start()
    finally:
        await producer.stop()
