"""What the user that an engine connects as has to be allowed."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from paperboy.engine.options import Options
from paperboy.engine.topics import NeededTopic
from paperboy.engine.topology import transactional_ids_prefix


class Permission(NamedTuple):
    """Operations on one resource, in the words of Kafka's ACLs."""

    resource: Literal["topic", "group", "cluster", "transactional-id"]
    name: str
    operations: tuple[str, ...]
    is_prefix: bool = False
    """Whether it is about all whose names begin with this one."""


def permissions_needed(options: Options, needed: Sequence[NeededTopic]) -> list[Permission]:
    """The least with which an engine runs."""
    permissions = [Permission("topic", each.spec.name, each.operations) for each in needed]
    permissions.append(Permission("group", options.group_id, ("Read",)))
    if options.is_exact:
        permissions.append(Permission("transactional-id", transactional_ids_prefix(options.group_id), ("Write",), True))
    if any(each.is_created and each.spec.replication_factor is None for each in needed):
        # The cluster's default replication factor is a setting of its brokers.
        permissions.append(Permission("cluster", "kafka-cluster", ("DescribeConfigs",)))
    return permissions
