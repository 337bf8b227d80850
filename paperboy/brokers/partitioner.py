"""Which partition a key belongs to: the answer that every Kafka client gives by default."""

from functools import lru_cache
from struct import iter_unpack
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_WORD: Final = 0xFFFFFFFF

_CACHED_KEYS: Final = 32_768
_CACHED_KEY_BYTES: Final = 128
"""Longer keys are hashed each time, so that the cache stays below about 10 MB whatever the keys are."""


def partition_for_key(key: bytes, partitions: int) -> int:
    """The partition of a key, as Java's default partitioner chooses it: equal keys from any client meet there.

    A record without a key has no partition of its own; where to put it is the sender's choice.

    Args:
        key: the key's bytes, as they are sent.
        partitions: how many partitions the topic has, 1 or more.

    Example:
        >>> partition_for_key(b"user-1", 4)
        0
    """
    if len(key) > _CACHED_KEY_BYTES:
        return _murmur2(key) % partitions
    return _cached_murmur2(key) % partitions


def _murmur2(data: bytes) -> int:
    """Kafka's murmur2 of `data` with its sign bit cleared (`Utils.toPositive(Utils.murmur2(data))` in Java)."""
    length = len(data)
    whole = length & ~3
    state = _SEED ^ length
    for (word,) in iter_unpack("<I", data[:whole]):
        mixed = word * _MULTIPLIER & _WORD
        mixed ^= mixed >> 24
        state = (state * _MULTIPLIER ^ mixed * _MULTIPLIER) & _WORD
    if whole != length:
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _WORD
    state ^= state >> 13
    state = state * _MULTIPLIER & _WORD
    return (state ^ state >> 15) & 0x7FFFFFFF


_cached_murmur2 = lru_cache(_CACHED_KEYS)(_murmur2)
