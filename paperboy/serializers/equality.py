"""Whether what came back is what was given."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final


def same(one: object, other: object) -> bool:
    """Whether two values are equal, and of the same types throughout the lists, tuples, sets and dicts they consist of.

    Python's own ``==`` takes ``1``, ``1.0`` and ``True`` for equal. NaN is the same as NaN here, and the order of a
    dict does not count.

    Raises:
        Exception: whatever comparing objects of other classes raises.

    Example:
        >>> same([1, {"a": 2.0}], [1, {"a": 2.0}]), same([1], [True])
        (True, False)
    """
    kind = type(one)
    if kind is not type(other):
        return False
    compare = _COMPARE.get(kind)
    return compare(one, other) if compare is not None else bool(one == other)


def _same_items(one: list[object] | tuple[object, ...], other: list[object] | tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


def _same_members(one: set[object] | frozenset[object], other: set[object] | frozenset[object]) -> bool:
    return len(one) == len(other) and _all_in(one, other)


def _same_dicts(one: dict[object, object], other: dict[object, object]) -> bool:
    return len(one) == len(other) and _all_in(one, other) and all(same(value, other[key]) for key, value in one.items())


def _all_in(one: Any, other: Any) -> bool:
    """Whether each member of `one` is one of `other`, and of the same type."""
    if all(type(member) is str for member in one) and all(type(member) is str for member in other):
        return all(member in other for member in one)
    found = {member: member for member in other}
    return all(member in found and same(member, found[member]) for member in one)


_COMPARE: Final[MappingProxyType[type, Callable[[Any, Any], bool]]] = MappingProxyType(
    {
        list: _same_items,
        tuple: _same_items,
        set: _same_members,
        frozenset: _same_members,
        dict: _same_dicts,
        float: lambda one, other: one == other or (one != one and other != other),
    }
)
