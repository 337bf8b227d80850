"""How handlers' hooks reach single entries of a table. Arguments are of any type: this is compiled in wheels."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from mypy_extensions import mypyc_attr

from paperboy.done import DONE, Done
from paperboy.errors import TableError
from paperboy.tables.partition import UNSET, TablePartition
from paperboy.tables.unit import Message, message_of_call

_MISSING: Final = object()


@mypyc_attr(allow_interpreted_subclasses=True)
class Access:
    """The part of a `Table` in which the message in hand reads and writes.

    Args:
        make_default: makes what a key that is not there is read as.
        has_default: whether the table has a default of its own.
    """

    def __init__(self, name: str, make_default: Callable[[], Any], *, has_default: bool) -> None:
        self.name = name
        self.make_default = make_default
        self.has_default = has_default

    def get(self, key: Any, default: Any = UNSET) -> Any:
        """The value of `key`, or `default`, or else the table's own default.

        Raises:
            SerializationError: `key` cannot be a key.
            DeserializationError: the value cannot be read.
            TableError: there is no message being handled here, or its task does not hold this table.
        """
        message = message_of_call.get()
        if message is not None:
            unit = message.unit
            if unit.message is message and (partition := unit.tables.get(self.name)) is not None:
                return partition.get(key, default)
        raise self._misused(message)

    def set(self, key: Any, value: Any) -> Done:
        """Put `value` under `key`: done when the call returns, with or without ``await``.

        Raises:
            SerializationError: `key` or `value` would not come back equal in value and type.
            TableError: as `get`; or the value is larger than the table, or its changelog, takes.
        """
        message = message_of_call.get()
        if message is not None:
            unit = message.unit
            if unit.message is message and (partition := unit.tables.get(self.name)) is not None:
                partition.set(key, value)
                return DONE
        raise self._misused(message)

    def delete(self, key: Any) -> Done:
        """Remove `key`, whether it is there or not: done when the call returns, with or without ``await``."""
        self._partition().delete(key)
        return DONE

    def get_many(self, keys: Iterable[Any], default: Any = UNSET) -> list[Any]:
        """The values of `keys`, in their order, `default` for what is not there. Quicker than many `get`."""
        return self._partition().get_many(keys, default)

    def set_many(self, entries: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Done:
        """Put all these entries: a mapping, or pairs of key and value. Where one is refused, none is put."""
        self._partition().set_many(entries.items() if isinstance(entries, Mapping) else entries)
        return DONE

    def delete_many(self, keys: Iterable[Any]) -> Done:
        """Remove all these keys, whether they are there or not. Where one cannot be a key, none is removed."""
        self._partition().delete_many(keys)
        return DONE

    def update(self, key: Any, fn: Callable[[Any], Any], default: Any = UNSET) -> Any:
        """Set `key` to ``fn(its value)`` (to ``fn(default)`` where it has none); returns the new value."""
        partition = self._partition()
        value = fn(partition.get(key, default))
        partition.set(key, value)
        return value

    def __getitem__(self, key: Any) -> Any:
        """Raises KeyError where `key` is not there, and the table has no default."""
        value = self._partition().get(key, _MISSING)
        if value is not _MISSING:
            return value
        if self.has_default:
            return self.make_default()
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        message = message_of_call.get()
        if message is not None:
            unit = message.unit
            if unit.message is message and (partition := unit.tables.get(self.name)) is not None:
                partition.set(key, value)
                return
        raise self._misused(message)

    def __delitem__(self, key: Any) -> None:
        """Raises KeyError where `key` is not there; `delete` does not mind."""
        partition = self._partition()
        if key not in partition:
            raise KeyError(key)
        partition.delete(key)

    def __contains__(self, key: Any) -> bool:
        return key in self._partition()

    def _partition(self) -> TablePartition:
        """The table's partition in the task of this call; `get`, `set` and `table[key] = …` have it inline."""
        message = message_of_call.get()
        if message is None or message.unit.message is not message or self.name not in message.unit.tables:
            raise self._misused(message)
        return message.unit.tables[self.name]

    def _misused(self, message: Message | None) -> TableError:
        if message is None:
            return TableError(
                f"Table {self.name!r} was used outside a message: get and set work inside a handler's hooks;"
                " elsewhere read table.snapshot()."
            )
        unit = message.unit
        if unit.message is not message:
            return TableError(
                f"Table {self.name!r} was used in {unit.name} after its message had ended: await what a hook starts"
                " before the hook returns."
            )
        return TableError(
            f"Table {self.name!r} was used in {unit.name}, whose handlers do not hold it: register it with the engine"
            " and name it in the handler's tables=[…], or send the data to a topic of a handler that has it."
        )
