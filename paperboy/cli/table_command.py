"""The commands ``paperboy table …``: looking into stores and changelogs."""

import argparse
import sys
from contextlib import aclosing
from typing import Any, NamedTuple

from paperboy.cli.changelogs import changelogs_on, extents
from paperboy.cli.errors import Misuse
from paperboy.cli.parts import Entry, Part, StorePart
from paperboy.cli.progress import progress_bar
from paperboy.cli.shown import JSON_FORMS, counted, line, print_columns
from paperboy.cli.source import is_address, source_of
from paperboy.cli.verify import Difference, Equal, Outdated, Verdict, verify

_SOURCE = "a state directory, or a directory in one; or a broker, as in localhost:9092, for the changelogs on it"


def add_to(commands: Any) -> None:
    """Add them to argparse's subparsers."""
    table = commands.add_parser(
        "table",
        help="look into the stores and changelogs of tables",
        description="Look into stores on disk, as they were flushed last (their worker may be running), and into"
        " changelogs.",
    )
    actions = table.add_subparsers(metavar="ACTION", required=True)
    for name, run, about in (
        ("ls", _list, "list the table partitions there are"),
        ("get", _get, "the value of a key in each partition that has it; exit code 1 where none has"),
        ("dump", _dump, "every entry, as a line of JSON"),
        ("stats", _stats, "count and measure entries"),
        ("verify", _verify, "compare stores with their changelogs; exit code 1 where one differs"),
    ):
        action = actions.add_parser(
            name, help=about, description=f"{about[0].upper()}{about[1:]}. {JSON_FORMS if run in (_get, _dump) else ''}"
        )
        action.set_defaults(run=run)
        if run is _verify:
            action.add_argument("source", metavar="STATE_DIR", help="a state directory, or a directory in one")
            action.add_argument("broker", metavar="BROKER", help="where the changelogs are, as in localhost:9092")
        else:
            action.add_argument("source", metavar="SOURCE", help=_SOURCE)
        action.add_argument("table", metavar="TABLE", help="its name", nargs=None if run is _get else "?")
        if run is _get:
            action.add_argument("key", metavar="KEY", help="a string, or a literal such as 7, b'a' or ('a', 7)")
        action.add_argument(
            "--engine",
            metavar="MODULE:ENGINE",
            help="for its tables' serializers, its group's changelogs and its client_options",
        )


async def _list(given: argparse.Namespace) -> bool:
    source = await source_of(given)
    if source.address is not None:
        async with source.connected(source.address) as broker:
            found = await extents(broker, await changelogs_on(broker, source.table, source.definition))
        rows = [(changelog.topic, changelog.partition, begin, end) for changelog, begin, end in found]
        print_columns(("CHANGELOG", "PARTITION", "BEGIN", "END"), rows)
        return False
    stores = source.stores()
    listed = [
        (part.table, part.partition, f"~{part.store.len_estimate()}", part.offset, part.size_bytes, part.path)
        for part in stores
    ]
    print_columns(("TABLE", "PARTITION", "ENTRIES", "OFFSET", "BYTES", "DIRECTORY"), listed)
    return stores.unreadable > 0


async def _get(given: argparse.Namespace) -> bool:
    source = await source_of(given)
    found = False
    async with aclosing(source.parts()) as parts:
        async for part in parts:
            for key in part.reading.keys_called(given.key):
                entry = part.get(key)
                if entry is not None:
                    found = True
                    print(_as_line(part, entry))
    if not found:
        print(f"paperboy: table {given.table!r} in {given.source} has no key {given.key}.", file=sys.stderr)
    return not found or source.unreadable


async def _dump(given: argparse.Namespace) -> bool:
    source = await source_of(given)
    async with aclosing(source.parts()) as parts:
        async for part in parts:
            for entry in part:
                print(_as_line(part, entry))
    return source.unreadable


async def _stats(given: argparse.Namespace) -> bool:
    source = await source_of(given)
    async with aclosing(source.parts()) as parts:
        measured = [_measured(part) async for part in parts]
    rows: list[tuple[object, ...]] = []
    for table in dict.fromkeys(each.table for each in measured):
        of_table = [each for each in measured if each.table == table]
        rows += of_table
        sums = [sum(column) for column in zip(*(each[2:5] for each in of_table), strict=True)]
        rows.append((table, "all", *sums, max(each.largest_value for each in of_table), "", ""))
    print_columns(
        ("TABLE", "PARTITION", "ENTRIES", "KEY BYTES", "VALUE BYTES", "LARGEST VALUE", "OFFSET", "TAKES"), rows
    )
    return source.unreadable


async def _verify(given: argparse.Namespace) -> bool:
    source = await source_of(given)
    if source.address is not None or not is_address(given.broker):
        raise Misuse("verify takes a state directory and a broker: paperboy table verify .paperboy localhost:9092")
    stores, wrong = source.stores(), False
    async with source.connected(given.broker) as broker:
        with progress_bar(None, "offsets", "reading") as bar:
            for part in stores:
                verdict = await verify(part.store, part.store.identity, broker, bar.update)
                wrong = wrong or not isinstance(verdict, Equal | Outdated)
                bar.clear()
                print(f"{part.table}[{part.partition}] in {part.path}: {_sentence(verdict, part)}", flush=True)
    return wrong or stores.unreadable > 0


class _Measured(NamedTuple):
    table: str
    partition: int
    entries: int
    key_bytes: int
    value_bytes: int
    largest_value: int
    offset: int
    takes: str


def _measured(part: Part) -> _Measured:
    entries = key_bytes = value_bytes = largest = 0
    for key, value, _ in part:
        entries += 1
        key_bytes += len(key)
        value_bytes += len(value)
        largest = max(largest, len(value))
    return _Measured(part.table, part.partition, entries, key_bytes, value_bytes, largest, part.offset, part.takes)


def _as_line(part: Part, entry: Entry) -> str:
    return line(
        {
            "table": part.table,
            "partition": part.partition,
            "offset": entry.offset,
            "key": part.reading.key(entry.key),
            "value": part.reading.value(entry.value),
        }
    )


def _sentence(verdict: Verdict, part: StorePart) -> str:
    match verdict:
        case Equal(compared, gone):
            more = f"; {counted(gone, 'key')} compacted away there since" if gone else ""
            return f"equal in {counted(compared, 'key')}, up to offset {part.offset}{more}"
        case Outdated(why):
            return f"outdated, and restored when its worker starts: {why}"
        case Difference(key, stored, said, offset):
            has = "nothing" if stored is None else line(part.reading.value(stored))
            says = "nothing" if said is None else line(part.reading.value(said))
            where = "" if offset is None else f" at offset {offset}"
            return f"DIFFERS first in key {line(part.reading.key(key))}: it has {has}, its changelog {says}{where}"
    return f"WRONG: {verdict.why}"
