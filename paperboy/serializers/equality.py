"""Whether what came back is what was given."""

from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from datetime import datetime
from types import MappingProxyType, NoneType
from typing import Any, Final


def same(one: object, other: object) -> bool:
    """Whether two values are equal, and of the same types throughout the lists, tuples, sets, dicts, and fields of
    dataclasses, msgspec.Structs and pydantic models they consist of.

    Python's own ``==`` takes ``1``, ``1.0`` and ``True`` for equal, and one moment in two zones. NaN is the same as NaN
    here, and the order of a dict does not count.

    Raises:
        Exception: whatever comparing objects of other classes raises.

    Example:
        >>> same([1, {"a": 2.0}], [1, {"a": 2.0}]), same([1], [True])
        (True, False)
    """
    kind = type(one)
    if kind is not type(other):
        return False
    if kind in _SCALARS:
        return one == other
    compare = _COMPARE.get(kind)
    if compare is not None:
        return compare(one, other)
    if isinstance(one, tuple):  # a NamedTuple
        return _same_items(one, other)  # type: ignore[arg-type]
    names = _compared_fields(kind)
    if names is None:
        return bool(one == other)
    return all(same(getattr(one, name), getattr(other, name)) for name in names)


def _compared_fields(kind: type) -> Iterable[str] | None:
    """The fields by which objects of a class are told apart; None where the class knows that alone."""
    struct_fields: Iterable[str] | None = getattr(kind, "__struct_fields__", None)
    if struct_fields is not None:
        return struct_fields
    if is_dataclass(kind):
        return [field.name for field in fields(kind) if field.compare]
    if hasattr(kind, "__pydantic_fields__"):
        return ["__dict__", "__pydantic_extra__"]
    return None


def _same_items(one: list[object] | tuple[object, ...], other: list[object] | tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


def _same_members(one: set[object] | frozenset[object], other: set[object] | frozenset[object]) -> bool:
    return len(one) == len(other) and _all_in(one, other)


def _same_dicts(one: dict[object, object], other: dict[object, object]) -> bool:
    if len(one) != len(other) or not _all_in(one, other):
        return False
    for key, value in one.items():  # noqa: SIM110 - quicker by far than all() of a generator
        if not same(value, other[key]):
            return False
    return True


def _all_in(one: Any, other: Any) -> bool:
    """Whether each member of `one` is one of `other`, and of the same type."""
    if set(map(type, one)) == _ALL_STR == set(map(type, other)):
        return all(map(other.__contains__, one))
    found = {member: member for member in other}
    return all(member in found and same(member, found[member]) for member in one)


_ALL_STR: Final = {str}
_SCALARS: Final = frozenset({str, int, bool, NoneType, bytes})
"""Those of which equal ones are the same."""

_COMPARE: Final[MappingProxyType[type, Callable[[Any, Any], bool]]] = MappingProxyType(
    {
        list: _same_items,
        tuple: _same_items,
        set: _same_members,
        frozenset: _same_members,
        dict: _same_dicts,
        float: lambda one, other: one == other or (one != one and other != other),
        datetime: lambda one, other: one == other and one.utcoffset() == other.utcoffset(),
    }
)
