"""Which topics belong together, and what is refused with a sentence before anything is consumed."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paperboy.brokers.protocol import TopicDescription, TopicSpec
from paperboy.engine.topology import (
    TaskId,
    TopicGroup,
    changelog_spec,
    changelog_topic,
    check_changelog,
    missing_topics,
    partition_count,
    topic_groups,
)
from paperboy.errors import ConfigurationError
from paperboy.handlers.dispatch import Dispatch
from paperboy.handlers.error_policy import DeadLetter, Retry
from paperboy.handlers.handler import Handler
from paperboy.tables.table import Table

CLICKS, USERS, TOTALS = Table("clicks"), Table("users"), Table("totals")


def dispatch(*topics: str, tables: Sequence[Table] | None = None, group_name: str | None = None) -> Dispatch:
    body: dict[str, Any] = {"topic": topics, "tables": tables, "group_name": group_name}
    return Dispatch(type("".join(map(str.title, topics)), (Handler,), body), fail_on_exception=True)


def groups(*dispatches: Dispatch, tables: Sequence[Table] = ()) -> list[tuple[str, tuple[str, ...], list[str]]]:
    """Name, topics and tables of each group."""
    found = topic_groups(dispatches, {table.name: table for table in tables})
    return [(group.name, group.topics, [table.name for table in group.tables]) for group in found]


def described(name: str, partitions: int = 1, **config: str) -> TopicDescription:
    settings = {setting.replace("_", "."): value for setting, value in config.items()}
    return TopicDescription(name, partitions, settings)


def test_without_tables_every_topic_stands_alone_even_those_of_one_handler() -> None:
    assert groups(dispatch("b", "c"), dispatch("a")) == [("a", ("a",), []), ("b", ("b",), []), ("c", ("c",), [])]


def test_topics_that_share_a_table_form_one_group_named_after_the_first() -> None:
    views, users = dispatch("views", tables=[CLICKS]), dispatch("users", tables=[CLICKS])
    assert groups(views, users, tables=[CLICKS]) == [("users", ("users", "views"), ["clicks"])]


def with_retries(*dispatches: Dispatch, group_id: str = "g") -> list[Dispatch]:
    """These, and those of their retry topics."""
    retries = [each for one in dispatches for topic in one.topics for each in one.for_retries(group_id, topic)]
    return [*dispatches, *retries]


def test_retry_topics_are_in_the_group_of_their_source_and_do_not_join_others() -> None:
    a, b = (
        Dispatch(
            type("Failing", (Handler,), {"topic": topic, "tables": []}),
            fail_on_exception=True,
            retry=Retry(delays=["10s"], via="topics"),
            dead_letter=DeadLetter(),
        )
        for topic in ("a", "b")
    )
    assert groups(*with_retries(a, b)) == [
        ("a", ("a", "g-a-retry", "g-a-retry-10s"), []),
        ("b", ("b", "g-b-retry", "g-b-retry-10s"), []),
    ]


def test_a_group_keeps_the_name_of_its_first_source_where_a_retry_topic_sorts_before_it() -> None:
    views = Dispatch(
        type("Views", (Handler,), {"topic": ["views", "users"]}), fail_on_exception=True, dead_letter=DeadLetter()
    )
    topics = ("a-users-retry", "a-views-retry", "users", "views")
    assert groups(*with_retries(views, group_id="a"), tables=[CLICKS]) == [("users", topics, ["clicks"])]


def test_retry_topics_reach_the_tables_of_their_source_and_a_group_name_holds_for_them() -> None:
    views = Dispatch(
        type("Views", (Handler,), {"topic": "views", "tables": [CLICKS], "group_name": "mine"}),
        fail_on_exception=True,
        dead_letter=DeadLetter(),
    )
    users = dispatch("users", tables=[USERS])
    assert groups(*with_retries(views, users), tables=[CLICKS, USERS]) == [
        ("mine", ("g-views-retry", "views"), ["clicks"]),
        ("users", ("users",), ["users"]),
    ]


def test_a_handler_that_names_no_tables_uses_all_of_them() -> None:
    assert groups(dispatch("a"), dispatch("b", tables=[USERS]), dispatch("c", tables=[]), tables=[CLICKS, USERS]) == [
        ("a", ("a", "b"), ["clicks", "users"]),
        ("c", ("c",), []),
    ]


def test_groups_grow_together_over_several_tables() -> None:
    chain = [
        dispatch("d", tables=[CLICKS]),
        dispatch("c", tables=[CLICKS, USERS]),
        dispatch("b", tables=[TOTALS]),
        dispatch("a", tables=[USERS]),
    ]
    assert groups(*chain, tables=[CLICKS, USERS, TOTALS]) == [
        ("a", ("a", "c", "d"), ["clicks", "users"]),
        ("b", ("b",), ["totals"]),
    ]


def test_the_handlers_own_group_name_wins() -> None:
    assert groups(dispatch("a"), dispatch("b", group_name="main"), tables=[CLICKS]) == [
        ("main", ("a", "b"), ["clicks"])
    ]


def test_handlers_of_one_group_may_say_the_same_name() -> None:
    one, other = dispatch("a", group_name="main"), dispatch("b", group_name="main")
    assert groups(one, other, tables=[CLICKS]) == [("main", ("a", "b"), ["clicks"])]


def refused(*dispatches: Dispatch, tables: Sequence[Table] = ()) -> str:
    with pytest.raises(ConfigurationError) as caught:
        groups(*dispatches, tables=tables)
    return str(caught.value)


def test_a_group_with_two_names_is_refused() -> None:
    message = refused(dispatch("b", group_name="other"), dispatch("a", group_name="main"), tables=[CLICKS])
    assert message == (
        "Topics 'a', 'b' share tables and form one group, but its handlers name it 'main' and 'other':"
        " give one group_name."
    )


@pytest.mark.parametrize(
    "dispatches",
    [
        [dispatch("a", group_name="main"), dispatch("b", group_name="main")],
        [dispatch("a", "b", group_name="main")],
        [dispatch("a", group_name="b"), dispatch("b")],
    ],
)
def test_two_groups_with_one_name_are_refused_or_the_one_would_take_the_others_tasks(
    dispatches: list[Dispatch],
) -> None:
    message = refused(*dispatches)
    assert re.search("'a'.*'b'.*group_name", message), message
    assert "share no table" in message


def test_a_table_that_is_not_registered_is_refused() -> None:
    message = refused(dispatch("views", tables=[CLICKS]), tables=[USERS])
    assert message == "Views uses table 'clicks', which is not registered: call engine.register_table first."
    assert "'clicks'" in refused(dispatch("views", tables=[CLICKS]), tables=[Table("clicks")])


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.frozensets(st.sampled_from("uvwxyz"), max_size=3), min_size=1),
    st.randoms(use_true_random=False),
)
def test_topics_are_together_exactly_when_tables_lead_from_one_to_the_other(
    tables_of: dict[str, frozenset[str]], random: Any
) -> None:
    tables = {name: Table(name) for name in "uvwxyz"}
    handlers = [dispatch(topic, tables=[tables[name] for name in sorted(used)]) for topic, used in tables_of.items()]
    random.shuffle(handlers)
    found = topic_groups(handlers, tables)
    together = {topic: group.topics for group in found for topic in group.topics}
    assert sorted(together) == sorted(tables_of)
    for topic in tables_of:
        reached = {topic}
        for _ in tables_of:
            reached |= {other for other in tables_of for each in reached if tables_of[other] & tables_of[each]}
        assert together[topic] == tuple(sorted(reached))
    for group in found:
        assert group.name == min(group.topics)
        assert {table.name for table in group.tables} == set().union(*(tables_of[topic] for topic in group.topics))
    assert [group.name for group in found] == sorted(group.name for group in found)


def test_a_group_has_as_many_tasks_as_its_topics_have_partitions() -> None:
    group = TopicGroup("a", ("a", "b"), (CLICKS,))
    assert partition_count(group, {"a": described("a", 4), "b": described("b", 4), "c": described("c", 9)}) == 4


def test_partition_counts_that_differ_are_refused_with_each_topics_own() -> None:
    group = TopicGroup("a", ("a", "b"), (CLICKS, USERS))
    with pytest.raises(ConfigurationError) as caught:
        partition_count(group, {"a": described("a", 4), "b": described("b", 8)})
    assert str(caught.value) == (
        "Topics that share a table need one partition count, but 'a' has 4, 'b' has 8 (they share 'clicks', 'users'):"
        " make the counts equal, or say with tables=[…] on each handler which tables it uses."
    )


def test_a_task_is_called_by_its_group_and_partition() -> None:
    assert str(TaskId("views", 3)) == "views[3]"
    assert sorted([TaskId("b", 0), TaskId("a", 10), TaskId("a", 9)]) == [
        TaskId("a", 9),
        TaskId("a", 10),
        TaskId("b", 0),
    ]


def test_a_changelog_is_named_after_group_and_table_or_as_the_table_says() -> None:
    assert changelog_topic(CLICKS, "app") == "app-clicks-changelog"
    assert changelog_topic(Table("clicks", changelog_topic_name="log"), "app") == "log"


def test_a_changelog_is_compacted_and_has_the_inputs_partition_count() -> None:
    assert changelog_spec(CLICKS, "app", 12) == TopicSpec(
        "app-clicks-changelog", 12, None, {"cleanup.policy": "compact"}
    )


def test_a_changelog_has_the_tables_own_settings() -> None:
    table = Table(
        "clicks",
        changelog_topic_name="log",
        changelog_topic_num_partitions=3,
        changelog_topic_replication_factor=2,
        changelog_topic_segment_ms=60_000,
        changelog_topic_min_cleanable_dirty_ratio=0.1,
        changelog_topic_max_compaction_lag_ms=0,
    )
    config = {
        "cleanup.policy": "compact",
        "segment.ms": "60000",
        "min.cleanable.dirty.ratio": "0.1",
        "max.compaction.lag.ms": "0",
    }
    assert changelog_spec(table, "app", 3) == TopicSpec("log", 3, 2, config)


def test_a_changelog_with_another_partition_count_than_its_input_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        changelog_spec(Table("clicks", changelog_topic_num_partitions=4), "app", 12)
    assert str(caught.value) == (
        "Table 'clicks' sets changelog_topic_num_partitions=4, but its input topics have 12:"
        " a changelog has as many partitions as the input, so leave it out."
    )


SPEC = changelog_spec(CLICKS, "app", 12)


@pytest.mark.parametrize("policy", ["compact", " compact ", "compact "])
def test_a_changelog_that_exists_and_is_compacted_is_taken(policy: str) -> None:
    check_changelog(SPEC, described(SPEC.name, 12, cleanup_policy=policy))


@pytest.mark.parametrize("policy", ["delete", "compact,delete", "delete, compact", ""])
def test_a_changelog_that_would_lose_entries_is_refused(policy: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_changelog(SPEC, described(SPEC.name, 12, cleanup_policy=policy))
    assert str(caught.value) == (
        f"Changelog 'app-clicks-changelog' has cleanup.policy={policy!r}, with which the table would lose entries:"
        " set it to 'compact'."
    )


def test_a_changelog_that_says_nothing_of_its_policy_is_taken_for_one_that_deletes() -> None:
    with pytest.raises(ConfigurationError, match=r"cleanup\.policy='delete'"):
        check_changelog(SPEC, described(SPEC.name, 12))


def test_a_changelog_that_exists_with_another_partition_count_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_changelog(SPEC, described(SPEC.name, 4, cleanup_policy="compact"))
    assert str(caught.value) == (
        "Changelog 'app-clicks-changelog' has 4 partitions, but the input topics have 12: the table's entries would be"
        " in the wrong places; stop all workers, and run 'paperboy reset' for this engine, or use another table name."
    )


def test_missing_topics_are_listed_with_all_that_is_needed_to_create_them() -> None:
    assert missing_topics([SPEC, TopicSpec("log", 1, None, {"segment.ms": "9", "cleanup.policy": "compact"})]) == (
        "'app-clicks-changelog' (12 partitions, cleanup.policy=compact);"
        " 'log' (1 partition, cleanup.policy=compact, segment.ms=9)"
    )
