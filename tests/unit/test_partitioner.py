"""Keys go where every Kafka client sends them."""

import random

import pytest
from aiokafka.partitioner import murmur2

from paperboy.brokers.partitioner import partition_for_key

HIGHEST = 2**31
"""With this many partitions, a key's partition is its hash."""


@pytest.mark.parametrize(
    ("key", "java_hash"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_the_one_of_kafkas_own_tests(key: bytes, java_hash: int) -> None:
    assert partition_for_key(key, HIGHEST) == java_hash & 0x7FFFFFFF


def test_keys_of_every_length_and_byte_go_where_aiokafka_sends_them() -> None:
    chance = random.Random(2013)
    keys = [chance.randbytes(length) for length in range(300) for _ in range(10)]
    for key in keys:
        for partitions in (1, 2, 7, 12, 1000):
            assert partition_for_key(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions


def test_a_key_goes_to_the_same_partition_again() -> None:
    for key in (b"", b"hot", b"long" * 100):
        assert partition_for_key(key, 12) == partition_for_key(bytes(bytearray(key)), 12)


def test_more_keys_than_the_cache_holds_are_no_matter() -> None:
    first = [partition_for_key(b"%d" % number, 12) for number in range(50_000)]
    again = [partition_for_key(b"%d" % number, 12) for number in range(50_000)]
    assert first == again
    assert set(first) == set(range(12))
