"""Messages that wait in retry topics which the engine does not read any more, since its policies were changed."""

from collections.abc import Mapping

from paperboy.brokers.protocol import Broker, TopicPartition
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.retry_topics import retry_topic
from paperboy.log import get_logger

_log = get_logger("paperboy.engine")


async def report_left_behind(broker: Broker, group_id: str, dispatches: Mapping[str, Dispatch]) -> None:
    """Say how many messages wait, and how they are handled all the same.

    Args:
        dispatches: by topic, those of retries included.

    Raises:
        BrokerError: the broker does not answer.
    """
    prefixes = tuple(retry_topic(group_id, name) for name, each in dispatches.items() if each.retries_of is None)
    unread = [name for name in await broker.topic_names() if name.startswith(prefixes) and name not in dispatches]
    if not unread:
        return
    described = await broker.describe_topics(unread)
    partitions = [TopicPartition(name, number) for name in described for number in range(described[name].partitions)]
    committed, ends = await broker.committed(group_id, partitions), await broker.end_offsets(partitions)
    for name in described:
        # Where the group has committed nothing, the topic only happens to be called so.
        lags = [
            ends[each] - offset for each in partitions if each.topic == name and (offset := committed[each]) is not None
        ]
        if sum(lags) > 0:
            _log.error(
                "messages wait in a retry topic that is not read",
                topic=name,
                records=sum(lags),
                remedy="declare its delay again (or its dead_letter, for replays) until they are handled",
            )
