"""What the benchmarks say of what they have measured."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from benchmarks.bars import BEGIN, END, drawing, groups_of, publish, section, with_section
from benchmarks.hot import PATHS, rounds
from benchmarks.process import JobFailed, JobProcess
from benchmarks.quick import worsened
from benchmarks.report import report
from benchmarks.results import Results, is_met
from benchmarks.trials import growth
from benchmarks.workloads import GOALS, Goal


def results(**runs: dict[str, list[float]]) -> Results:
    """Rates by workload and contender; underscores stand for hyphens."""
    made = Results(
        measured="2026-01-02",
        command="python -m benchmarks",
        asked=1_000,
        repeats=3,
        machine={"processor": "A & B", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11"},
        versions={"kafka": "Apache Kafka 4.3.1"},
    )
    for workload, contenders in runs.items():
        for contender, rates in contenders.items():
            for rate in rates:
                made.note(workload.replace("_", "-"), contender, {"rate": rate, "records": 1_000})
    return made


def goal(workload: str, against: str) -> Goal:
    (found,) = (
        each
        for each in GOALS
        if each.workload == workload and each.against == (against,) and each.figure in ("rate", "p50_ms")
    )
    return found


def test_a_goal_is_reached_by_the_ratio_of_medians() -> None:
    measured = results(map={"paperboy": [300, 100, 200], "quix": [40, 41, 1]})
    assert measured.reached(goal("map", "quix"), "paperboy") == 5.0
    assert is_met(goal("map", "quix"), 5.0)
    assert not is_met(goal("map", "quix"), 4.99)


def test_a_goal_against_two_settings_is_one_against_the_better() -> None:
    measured = results(count_unique={"paperboy": [150], "streams": [50], "streams-uncached": [100]})
    (aim,) = (each for each in GOALS if len(each.against) == 2 and each.figure == "rate")
    assert measured.reached(aim, "paperboy") == 1.5


def test_a_goal_of_latency_is_a_difference() -> None:
    measured = results()
    measured.note("latency", "paperboy", {"p50_ms": 1.5, "records": 1})
    measured.note("latency", "getone", {"p50_ms": 1.2, "records": 1})
    reached = measured.reached(goal("latency", "getone"), "paperboy")
    assert reached == pytest.approx(0.3)
    assert is_met(goal("latency", "getone"), 0.5)
    assert not is_met(goal("latency", "getone"), 0.51)


def test_memory_has_limits_of_its_own() -> None:
    of_peak, of_growth = (each for each in GOALS if each.workload == "memory")
    assert of_peak.limit is not None
    measured = results()
    measured.note("memory", "paperboy", {"rate": 1.0, "peak_mib": 300.4, "growth": 1.12, "records": 1})
    reached = measured.reached(of_peak, "paperboy")
    assert reached == 300.4
    assert is_met(of_peak, reached)
    assert not is_met(of_peak, of_peak.limit + 1)
    assert f"| a limit of its own | 300 | ≤ {of_peak.limit:.0f} | met |" in report(measured)
    assert not is_met(of_growth, 1.12)
    assert "| a limit of its own | 1.12× | ≤ 1.10× | missed |" in report(measured)


def test_growth_is_of_the_last_quarter_over_the_second() -> None:
    assert growth([10, 50, 90, 100, 100, 100, 150, 200, 150, 110, 120, 130]) == pytest.approx(1.2)
    assert growth([100.0] * 11) is None, "too short to tell"


def test_what_was_not_measured_is_said_and_reached_nothing() -> None:
    measured = results(noop={"paperboy": [2.0], "getmany": [2.0]})
    assert measured.reached(goal("noop", "quix"), "paperboy") is None
    assert "| ≥ 3× | not measured |" in report(measured)
    assert "- restore of a table: not in this run." in report(measured)


def test_a_peer_that_failed_stands_in_the_table_with_the_reason() -> None:
    measured = results(noop={"paperboy": [2.0]})
    measured.miss("noop", "faust", "could not be installed here: no wheel")
    assert "| faust-streaming |  |  |  |  |  | could not be installed here: no wheel |" in report(measured)
    assert "could not be installed here: no wheel" in drawing(groups_of(measured))


def test_bars_are_as_long_as_their_medians() -> None:
    drawn = ElementTree.fromstring(drawing(groups_of(results(noop={"paperboy": [400, 200, 300], "quix": [100]}))))
    _, *bars = drawn.iterfind("{*}rect")
    ours, theirs = (int(bar.attrib["width"]) for bar in bars)
    assert ours == pytest.approx(3 * theirs, abs=2)
    assert any("ours: 3.00×" in (text.text or "") for text in drawn.iterfind("{*}text"))


def test_the_page_is_changed_between_its_marks_only(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    publish(results(noop={"paperboy": [1.0]}), tmp_path)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert "Not measured: no-op, in bulk;" in text
    assert (tmp_path / "performance.svg").read_text().startswith("<svg ")


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!-- measured"):
        with_section("nothing", section(results()))


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    measured = results(noop={"paperboy": [1.0, 2.0]})
    measured.miss("noop", "quix", "why")
    measured.write(tmp_path / "RESULTS.json")
    assert Results.read(tmp_path / "RESULTS.json") == measured


def test_the_guard_fails_on_a_fall_of_more_than_15_percent() -> None:
    recorded = {"noop": 0.80, "map": 0.50}
    assert worsened({"noop": 0.69, "map": 0.43, "new": 0.01}, recorded, is_ratio=True) == []
    assert worsened({"noop": 0.67, "map": 0.43}, recorded, is_ratio=True) == ["noop"]


def test_the_guard_fails_on_more_than_5_percent_more_instructions() -> None:
    assert worsened({"noop": 1_049, "map": 900}, {"noop": 1_000, "map": 1_000}, is_ratio=False) == []
    assert worsened({"noop": 1_051, "map": 900}, {"noop": 1_000, "map": 1_000}, is_ratio=False) == ["noop"]


@pytest.mark.parametrize("path", PATHS)
async def test_each_hot_path_can_be_walked_twice(path: str) -> None:
    assert len(await rounds(path, 2)) == 2


def job(code: str, directory: Path) -> JobProcess:
    return JobProcess([sys.executable, "-c", code], {}, directory / "log", timeout_sec=30)


def test_a_job_tells_by_lines_of_json_and_is_measured(tmp_path: Path) -> None:
    run = job("""print('a word'); print('{"event": "first"}'); print('{"records": 7}'); b' ' * 50_000_000""", tmp_path)
    assert run.event("first") == {"event": "first"}
    facts, usage = run.result()
    assert facts == {"records": 7}
    assert usage.cpu_sec > 0


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="ended with 1: ValueError: no such topic"):
        job("raise ValueError('no such topic')", tmp_path).result()


def test_a_job_that_ends_too_early_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="ended before it was handled"):
        job("pass", tmp_path).event("handled")
