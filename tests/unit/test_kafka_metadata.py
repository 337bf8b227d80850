"""Kafka's Metadata request in a version of our own: what is asked, and what an answer means."""

import pytest
from aiokafka import errors as kafka_errors
from aiokafka.protocol.metadata import MetadataRequest_v5, MetadataResponse_v5

from paperboy.brokers.kafka.metadata import (
    MetadataRequest,
    MetadataRequest_v10,
    MetadataResponse_v10,
    TopicMetadata,
    Uuid,
    parsed,
)

METADATA = 3
TOPIC_ID = "4-vBYd_FRQiFZGSJD4IhCQ"


def new_partition(error_code: int, number: int) -> tuple[object, ...]:
    return (error_code, number, 1, 0, [1, 2, 3], [1, 2], [], {})


def new_answer(*topics: tuple[object, ...]) -> MetadataResponse_v10:
    response = MetadataResponse_v10(0, [(1, "localhost", 9092, None, {})], "cluster", 1, list(topics), 0, {})
    answer: MetadataResponse_v10 = MetadataResponse_v10.decode(response.encode())
    return answer


def old_answer(*topics: tuple[object, ...]) -> MetadataResponse_v5:
    response = MetadataResponse_v5(0, [(1, "localhost", 9092, None)], "cluster", 1, list(topics))
    answer: MetadataResponse_v5 = MetadataResponse_v5.decode(response.encode())
    return answer


def test_a_broker_that_knows_topic_ids_is_asked_for_them() -> None:
    request = MetadataRequest(["a", "b"]).prepare({METADATA: (0, 13)})
    assert type(request) is MetadataRequest_v10
    assert request.encode() == (
        b"\x03" + bytes(16) + b"\x02a\x00" + bytes(16) + b"\x02b\x00" + b"\x00\x00\x00" + b"\x00"
    )


def test_a_broker_that_knows_no_topic_ids_is_asked_without() -> None:
    request = MetadataRequest(["a"]).prepare({METADATA: (0, 9)})
    assert type(request) is MetadataRequest_v5
    assert request.encode() == b"\x00\x00\x00\x01" + b"\x00\x01a" + b"\x00"


@pytest.mark.parametrize("highest", [5, 9, 10, 13])
def test_asking_creates_no_topic(highest: int) -> None:
    assert MetadataRequest(["a"]).prepare({METADATA: (0, highest)}).allow_auto_topic_creation is False


def test_a_topic_is_known_by_its_partitions_its_replication_and_its_id() -> None:
    answer = new_answer((0, "a", TOPIC_ID, False, [new_partition(0, 0), new_partition(0, 1)], 0, {}))
    assert parsed(answer) == {"a": TopicMetadata(partitions=2, replication_factor=3, id=TOPIC_ID, usable=True)}


def test_a_topic_without_an_id_has_an_empty_one() -> None:
    """A cluster that was upgraded, and whose metadata are still in the old format, answers with zeros."""
    assert parsed(new_answer((0, "a", "", False, [new_partition(0, 0)], 0, {})))["a"].id == ""
    assert parsed(old_answer((0, "a", False, [(0, 0, 1, [1], [1], [])]))) == {
        "a": TopicMetadata(partitions=1, replication_factor=1, id="", usable=True)
    }


def test_a_topic_is_usable_when_all_its_partitions_have_leaders() -> None:
    leaderless = kafka_errors.LeaderNotAvailableError.errno
    half = new_answer((0, "a", TOPIC_ID, False, [new_partition(0, 0), new_partition(leaderless, 1)], 0, {}))
    none_yet = new_answer((0, "a", TOPIC_ID, False, [], 0, {}))
    assert not parsed(half)["a"].usable
    assert not parsed(none_yet)["a"].usable


@pytest.mark.parametrize("error", [kafka_errors.UnknownTopicOrPartitionError, kafka_errors.InvalidTopicError])
def test_a_topic_that_does_not_exist_is_left_out(error: type[kafka_errors.BrokerResponseError]) -> None:
    answer = new_answer(
        (error.errno, "a", "", False, [], 0, {}), (0, "b", TOPIC_ID, False, [new_partition(0, 0)], 0, {})
    )
    assert list(parsed(answer)) == ["b"]


def test_a_topic_that_may_not_be_described_is_named() -> None:
    answer = new_answer((kafka_errors.TopicAuthorizationFailedError.errno, "secret", "", False, [], 0, {}))
    with pytest.raises(kafka_errors.TopicAuthorizationFailedError, match="secret"):
        parsed(answer)


def test_an_id_is_written_as_kafkas_tools_write_it() -> None:
    raw = bytes.fromhex("e3ebc161dfc54508856464890f822109")
    assert Uuid.encode(TOPIC_ID) == raw
    assert Uuid.encode("") == bytes(16)
