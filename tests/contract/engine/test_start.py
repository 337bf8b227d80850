"""Starts that are refused: one sentence each, and nothing consumed."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from paperboy import BrokerUnreachable, ConfigurationError, Handler, Table
from tests.contract.engine.kit import Kit


class Views(Handler):
    topic = "views"


def test_an_unknown_option_is_refused_with_the_one_that_was_meant(kit: Kit) -> None:
    with pytest.raises(ConfigurationError, match=r"no option 'bulk_mode_treshold': did you mean 'bulk_mode_threshold'"):
        kit.engine(Views, bulk_mode_treshold=1)
    with pytest.raises(ConfigurationError, match=r"no option 'fetch_max_bytes'.*client_options"):
        kit.engine(Views, fetch_max_bytes=1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"group_id": ""}, "needs group_id"),
        ({"enable_auto_commit": True}, "enable_auto_commit=True would commit messages that are not finished"),
        ({"auto_offset_reset": "none"}, "auto_offset_reset='none' is not one of 'earliest', 'latest'"),
        ({"commit_interval_sec": 0}, "commit_interval_sec=0 must be a number above 0"),
        ({"bulk_mode_max_records": "many"}, "bulk_mode_max_records='many' must be a whole number above 0"),
        ({"bulk_mode_max_records": 1.5}, "bulk_mode_max_records=1.5 must be a whole number above 0"),
        ({"commit_interval_sec": float("nan")}, "commit_interval_sec=nan must be a number above 0"),
        ({"fail_on_exception": "no"}, "fail_on_exception='no' must be True or False"),
        ({"on_mode_change": 3}, "on_mode_change=3 must be a callable"),
        ({"client_options": 3}, "client_options=3 must be a dict"),
        ({"steps": 3}, "steps=3 must be a list of lists of handlers"),
        ({"heartbeat_interval_sec": 20, "session_timeout_sec": 10}, "heartbeat_interval_sec=20 must be less than"),
        ({"create_topics": "yes"}, "create_topics='yes' is not one of 'auto', 'never'"),
    ],
)
def test_an_option_out_of_range_is_refused(kit: Kit, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        kit.engine(Views, **options)


def test_enable_auto_commit_false_is_accepted(kit: Kit) -> None:
    kit.engine(Views, enable_auto_commit=False)


def test_a_handler_without_a_topic_is_refused(kit: Kit) -> None:
    class NoTopic(Handler):
        pass

    with pytest.raises(ConfigurationError, match="NoTopic has no topic"):
        kit.engine(NoTopic)


def test_no_handler_at_all_is_refused(kit: Kit) -> None:
    with pytest.raises(ConfigurationError, match="at least one handler"):
        kit.engine()


def test_something_that_is_no_handler_is_refused(kit: Kit) -> None:
    with pytest.raises(ConfigurationError, match=r"is no handler: subclass paperboy\.Handler"):
        kit.engine(object())


def test_two_handlers_for_one_topic_are_refused(kit: Kit) -> None:
    class More(Handler):
        topic = ("others", "views")

    with pytest.raises(ConfigurationError, match="Topic 'views' has two handlers, Views and More"):
        kit.engine(Views, More)


def test_a_hook_that_is_no_coroutine_function_is_refused(kit: Kit) -> None:
    class Plain(Handler):
        topic = "plain"

        @classmethod
        def on_message(cls, msg, ctx):
            pass

    with pytest.raises(ConfigurationError, match=r"Plain\.on_message is not a coroutine function"):
        kit.engine(Plain)


def test_a_class_whose_hook_wants_an_instance_is_refused(kit: Kit) -> None:
    class Instance(Handler):
        topic = "instance"

        async def on_message(self, msg, ctx):  # type: ignore[override]
            pass

    with pytest.raises(ConfigurationError, match=r"Instance\.on_message is a method of instances: make it a @class"):
        kit.engine(Instance)


def test_two_tables_of_one_name_are_refused(kit: Kit) -> None:
    engine = kit.engine(Views)
    engine.register_table(Table("clicks"))
    with pytest.raises(ConfigurationError, match="Two tables are called 'clicks'"):
        engine.register_table(Table("clicks"))


def test_a_handler_whose_table_is_not_registered_is_refused(kit: Kit) -> None:
    class Unregistered(Handler):
        topic = "views"
        tables = (Table("clicks"),)

    async def start() -> None:
        await kit.topic("views")
        Unregistered.topic = f"views-{kit.unique}"
        await kit.engine(Unregistered).start()

    with pytest.raises(ConfigurationError, match=r"Unregistered uses table 'clicks', which is not registered"):
        asyncio.run(start())


async def test_a_missing_topic_is_refused(kit: Kit) -> None:
    class Missing(Handler):
        topic = f"missing-{kit.unique}"

    in_memory = kit.bootstrap.startswith("memory:")  # where nobody but the engine could create it
    engine = kit.engine(Missing, create_topics="never" if in_memory else "auto")
    with pytest.raises(ConfigurationError, match=rf"Topic 'missing-{kit.unique}' to consume: not found on .*create it"):
        await engine.start()


async def test_the_memory_broker_creates_the_input_topics_that_are_missing() -> None:
    kit = Kit("memory://?partitions=3", "private")

    class Fresh(Handler):
        topic = "fresh"

    async with kit.engine(Fresh) as engine:
        await engine.caught_up()
        assert [task.name for task in engine.status().tasks] == ["fresh[0]", "fresh[1]", "fresh[2]"]


async def test_an_unreachable_broker_is_said_within_the_stated_time() -> None:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    kit = Kit("127.0.0.1:1", "unreachable")
    with pytest.raises(BrokerUnreachable, match=r"No Kafka broker answered at 127\.0\.0\.1:1 within 2 s \(connect"):
        await kit.engine(Views, connect_timeout_sec=2).start()
    assert loop.time() - begun < 4


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("Engine(V, bootstrap_servers='127.0.0.1:1', group_id='g', connect_timeout_sec=1)", "No Kafka broker answered"),
        ("Engine(V, bootstrap_servers='memory://', group_id='g', colour='red')", "Engine has no option 'colour'"),
        ("Engine(V, bootstrap_servers='memory://x?colour=red', group_id='g')", "colour"),
    ],
)
def test_a_refused_start_ends_the_process_with_one_sentence_and_an_exit_code(code: str, sentence: str) -> None:
    program = textwrap.dedent(f"""
        import asyncio
        from paperboy import Engine, Handler
        class V(Handler):
            topic = "views"
        asyncio.run({code}.start())
    """)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("paperboy.errors.")
    assert sentence in last
