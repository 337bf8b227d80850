"""The commands ``paperboy dlt …``: looking at dead letters, replaying them, deleting them."""

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from paperboy.brokers.protocol import TopicDescription
from paperboy.cli import purge, replay
from paperboy.cli.administration import Administration, open_administration
from paperboy.cli.dead_letters import dead_letter_topics, letters_in
from paperboy.cli.errors import Misuse
from paperboy.cli.extent import Extent, extents_of
from paperboy.cli.letter_filter import LetterFilter, Offsets, keys_called, offsets_of
from paperboy.cli.letter_shown import letter_shown, plain
from paperboy.cli.loading import Definition, definition_of, load_engine
from paperboy.cli.moments import milliseconds, moment, shown
from paperboy.cli.progress import progress_bar
from paperboy.cli.replay_ledger import Ledger, read_ledger
from paperboy.cli.replay_ways import ToGroup, ToOriginal
from paperboy.cli.shown import counted, print_columns

_OFFSETS = "as partition:from-to in the dead letter topic, both included; 3, 3:17, 3:17- and 3:-20 as well"
_MEMORY = " A broker in memory lives inside the process that runs the engine: a command does not see what it holds."
_TIME = "ISO 8601, in UTC if it names no zone"


def add_to(commands: Any) -> None:
    """Add them to argparse's subparsers."""
    dlt = commands.add_parser(
        "dlt",
        help="look at dead letters, replay them, delete them",
        description="Look at the dead letters of an engine, replay them to its group, delete them.",
    )
    actions = dlt.add_subparsers(metavar="ACTION", required=True)
    _add_action(actions, "ls", _list, "list the dead letter topics of an engine, and what they hold by error")

    show = _add_action(actions, "show", _show, "show dead letters: what they are, and why, where and when they failed")
    _add_topic(show)
    _add_narrower(show)
    show.add_argument("--limit", type=_count, default=20, metavar="N", help="how many at most (default: 20)")
    show.add_argument("--stack", action="store_true", help="with the stack of each")

    replaying = _add_action(
        actions,
        "replay",
        _replay,
        "give dead letters back to the group that failed to handle them, and to nobody else",
        "Says what it would do; with --yes it does it. One that was interrupted is run again, and goes on; no letter"
        " goes twice.",
    )
    _add_topic(replaying)
    _add_narrower(replaying)
    replaying.add_argument("--again", action="store_true", help="those that were replayed before, too")
    replaying.add_argument(
        "--to-original",
        action="store_true",
        help="to the topics they came from, and so to all readers of those; refused where one is compacted",
    )
    replaying.add_argument("--yes", action="store_true", help="do it")

    purging = _add_action(
        actions,
        "purge",
        _purge,
        "delete dead letters: of each partition those before the first one that is to stay",
        "Says what it would do; with --yes it does it.",
    )
    _add_topic(purging)
    purging.add_argument("--replayed", action="store_true", help="only those that were replayed")
    purging.add_argument("--yes", action="store_true", help="do it")


def _add_action(actions: Any, name: str, run: Any, about: str, more: str = "") -> argparse.ArgumentParser:
    description = f"{about[0].upper()}{about[1:]}. {more}"
    action: argparse.ArgumentParser = actions.add_parser(name, help=about, description=description)
    action.set_defaults(run=run)
    action.add_argument("engine", metavar="MODULE:ENGINE", help="as in app:engine, looked for in this directory first")
    return action


def _add_topic(action: argparse.ArgumentParser) -> None:
    """Which topic, and up to where."""
    action.add_argument("topic", metavar="TOPIC", help="the dead letter topic")
    action.add_argument(
        "--until", type=_moment, metavar="TIME", help=f"only those that failed last before this time: {_TIME}"
    )
    action.add_argument(
        "--offset", type=_offsets, action="append", default=[], metavar="OFFSETS", help=f"only these: {_OFFSETS}"
    )


def _add_narrower(action: argparse.ArgumentParser) -> None:
    """Which letters, wherever they stand."""
    action.add_argument("--error", default="", metavar="CLASS", help="only those whose error's class has this in it")
    action.add_argument(
        "--since", type=_moment, metavar="TIME", help=f"only those that failed last at this time or later: {_TIME}"
    )
    action.add_argument(
        "--key",
        type=keys_called,
        action="append",
        default=[],
        metavar="KEY",
        help="only those with this key: text, or bytes as b'a\\x00'",
    )


async def _list(given: argparse.Namespace) -> bool:
    definition = definition_of(await load_engine(given.engine))
    names = dead_letter_topics(definition)
    if not names:
        raise Misuse(
            f"{given.engine} puts nothing with dead letters: neither it nor a handler of it has a dead_letter."
        )
    rows: list[tuple[object, ...]] = []
    async with _connected(definition) as broker:
        found = await broker.describe_topics(names)
        for name in names:
            rows += await _rows(found[name], definition, broker) if name in found else [_absent(name)]
    print_columns(("TOPIC", "LETTERS", "REPLAYED", "FIRST FAILURE", "LAST FAILURE", "GROUP", "ERROR"), rows)
    return False


async def _rows(topic: TopicDescription, definition: Definition, broker: Administration) -> list[tuple[object, ...]]:
    counts: dict[tuple[str, str], _Count] = {}
    opened = await _opened(topic, definition, broker)
    with progress_bar(opened.offsets, "offsets", "reading") as bar:
        for extent in opened.extents:
            async with aclosing(letters_in(broker, extent, bar.update)) as letters:
                async for letter in letters:
                    failed = letter.failed
                    group = "" if failed is None else failed.group
                    count = counts.setdefault((group, letter.error_class), _Count(letter.failed_ms, letter.failed_ms))
                    count.letters += 1
                    count.replayed += opened.ledger.has(letter.at, letter.offset)
                    count.first_ms = min(count.first_ms, letter.failed_ms if failed is None else failed.first_ms)
                    count.last_ms = max(count.last_ms, letter.failed_ms)
    return [
        (
            topic.name,
            count.letters,
            count.replayed,
            shown(count.first_ms),
            shown(count.last_ms),
            plain(group) or "-",
            plain(error_class) or "-",
        )
        for (group, error_class), count in sorted(counts.items())
    ] or [(topic.name, 0, 0, "-", "-", "-", "-")]


def _absent(name: str) -> tuple[object, ...]:
    return name, "does not exist", "-", "-", "-", "-", "-"


async def _show(given: argparse.Namespace) -> bool:
    definition = definition_of(await load_engine(given.engine))
    meant = _filter(given)
    more = count = 0
    async with _connected(definition) as broker:
        opened = await _opened(await _described(given.topic, definition, broker), definition, broker)
        with progress_bar(opened.offsets, "offsets", "reading") as bar:
            for extent in opened.extents:
                async with aclosing(letters_in(broker, extent, bar.update)) as letters:
                    async for letter in letters:
                        if not meant.means(letter):
                            continue
                        if count == given.limit:
                            more += 1
                            continue
                        count += 1
                        bar.clear()
                        replayed = opened.ledger.has(letter.at, letter.offset)
                        print(*letter_shown(letter, replayed=replayed, stack=given.stack), "", sep="\n")
    print(f"{counted(count, 'dead letter')} of {given.topic}" + (f", and {more} more: raise --limit." if more else "."))
    return False


async def _replay(given: argparse.Namespace) -> bool:
    definition = definition_of(await load_engine(given.engine))
    group_id = definition.options.group_id
    way = ToOriginal(definition) if given.to_original else ToGroup(definition)
    async with _connected(definition) as broker:
        topic = await _described(given.topic, definition, broker)
        with progress_bar(None, "offsets", "reading") as bar:
            planned = await replay.plan(
                group_id, topic, _filter(given), way, broker, again=given.again, passed=bar.update
            )
        what = "are replayed now" if given.yes else "would be replayed"
        print(
            f"{counted(planned.letters, 'dead letter')} of {topic.name} {what}.", *replay.described(planned), sep="\n"
        )
        if given.to_original:
            print("WARNING: every reader of these topics gets them again, not group", repr(group_id), "alone.")
        if not given.yes:
            print("Nothing was sent: --yes does it.")
            return False
        sys.stdout.flush()
        await _carry_out(planned, broker)
        print(f"{counted(planned.letters, 'dead letter')} of {topic.name} replayed, all committed.")
    return False


async def _carry_out(planned: replay.Replay, broker: Administration) -> None:
    done = 0
    with progress_bar(planned.letters, "letters", "replaying") as bar:

        def report(letters: int) -> None:
            nonlocal done
            done += letters
            bar.update(letters)

        try:
            await replay.carry_out(planned, broker, report)
        except BaseException:
            bar.clear()
            print(
                f"paperboy: {done} of {counted(planned.letters, 'dead letter')} replayed; run the same replay again to"
                f" end it: {'letters go again that have gone.' if planned.again else 'none goes twice.'}",
                file=sys.stderr,
            )
            raise


async def _purge(given: argparse.Namespace) -> bool:
    definition = definition_of(await load_engine(given.engine))
    meant = LetterFilter(until_ms=_milliseconds(given.until), offsets=tuple(given.offset))
    async with _connected(definition) as broker:
        topic = await _described(given.topic, definition, broker)
        with progress_bar(None, "offsets", "reading") as bar:
            planned = await purge.plan(
                definition.options.group_id, topic, meant, broker, only_replayed=given.replayed, passed=bar.update
            )
        what = "are deleted now" if given.yes else "would be deleted"
        print(f"{counted(planned.letters, 'dead letter')} of {topic.name} {what}.", *purge.described(planned), sep="\n")
        if not given.yes:
            print("Nothing was deleted: --yes does it, and nothing brings them back.")
            return False
        sys.stdout.flush()
        await purge.carry_out(planned, broker)
        print(f"{counted(planned.letters, 'dead letter')} of {topic.name} deleted.")
    return False


@dataclass(slots=True)
class _Count:
    first_ms: int
    last_ms: int
    letters: int = 0
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class _Opened:
    """A dead letter topic, to be read."""

    extents: list[Extent]
    ledger: Ledger

    @property
    def offsets(self) -> int:
        return sum(extent.end - extent.begin for extent in self.extents)


async def _opened(topic: TopicDescription, definition: Definition, broker: Administration) -> _Opened:
    ledger = await read_ledger(broker, definition.options.group_id, topic)
    return _Opened(await extents_of(broker, [topic]), ledger)


@asynccontextmanager
async def _connected(definition: Definition) -> AsyncIterator[Administration]:
    options = definition.options
    broker = open_administration(
        options.bootstrap_servers,
        client_options=options.client_options,
        connect_timeout_sec=options.connect_timeout_sec,
    )
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()


async def _described(name: str, definition: Definition, broker: Administration) -> TopicDescription:
    found = await broker.describe_topics([name])
    if name not in found:
        there_are = ", ".join(dead_letter_topics(definition)) or "none"
        raise Misuse(
            f"There is no topic {name!r} on {broker.name}; the engine's dead letter topics: {there_are}."
            + (_MEMORY if broker.name.startswith("memory:") else "")
        )
    return found[name]


def _filter(given: argparse.Namespace) -> LetterFilter:
    return LetterFilter(
        error=given.error,
        since_ms=_milliseconds(given.since),
        until_ms=_milliseconds(given.until),
        keys=frozenset[bytes]().union(*given.key),
        offsets=tuple(given.offset),
    )


def _milliseconds(when: datetime | None) -> int | None:
    return None if when is None else milliseconds(when)


def _moment(text: str) -> datetime:
    try:
        return moment(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-11-21T08:30:00+01:00.") from None


def _offsets(text: str) -> Offsets:
    try:
        return offsets_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} names no offsets: write {_OFFSETS}.") from None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0.")
    return int(text)
