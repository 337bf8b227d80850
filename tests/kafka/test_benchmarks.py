"""The benchmarks' own jobs do the whole work, and the oracle would say so if they did not. Peers are not installed."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import inputs, oracle
from benchmarks.contenders import AS_PYTHON, CONTENDERS, OURS
from benchmarks.oracle import WorkMissing
from benchmarks.peers.lines import avro_reader
from benchmarks.trials import Trials
from benchmarks.workloads import AVRO, HOT, JSON, PARTITIONS, WORKLOADS
from paperboy.brokers.partitioner import partition_for_key

RECORDS = 2_000

RUNS = [
    ("getmany", "noop"),
    ("getmany", "avro"),
    ("getmany-send", "map"),
    (AS_PYTHON, "noop-bulk"),
    (AS_PYTHON, "json"),
    (AS_PYTHON, "avro"),
    (AS_PYTHON, "map"),
    (AS_PYTHON, "count-hot-bulk"),
    (AS_PYTHON, "count-exactly-once"),
    (AS_PYTHON, "restore"),
    (AS_PYTHON, "restart"),
    (AS_PYTHON, "latency"),
]

COMPILED_RUNS = ["map", "count-exactly-once", "restore"]


@pytest.fixture(scope="module")
def trials(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(kafka_bootstrap, tmp_path_factory.mktemp("trials"), RECORDS)


@pytest.mark.parametrize(("contender", "workload"), RUNS)
def test_a_job_does_the_whole_work(trials: Trials, contender: str, workload: str) -> None:
    figures = trials.run(CONTENDERS[contender], WORKLOADS[workload])
    measured = WORKLOADS[workload].figures[0]
    assert figures[measured] > 0
    assert figures["records"] == trials.records(CONTENDERS[contender], WORKLOADS[workload])


@pytest.mark.parametrize("workload", COMPILED_RUNS)
def test_the_compiled_modules_do_the_whole_work_too(trials: Trials, compiled: Path, workload: str) -> None:
    figures = trials.run(CONTENDERS[OURS], WORKLOADS[workload])
    assert figures["records"] == trials.records(CONTENDERS[OURS], WORKLOADS[workload])


def test_a_peer_that_lies_about_its_work_is_found_out(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    no_op_for_map = CONTENDERS[AS_PYTHON]
    monkeypatch.setitem(no_op_for_map.does, "map", "noop")
    with pytest.raises(WorkMissing, match="1000 of 1000 keys are wrong in the output"):
        trials.run(no_op_for_map, WORKLOADS["map"])


async def test_the_oracle_sees_a_missing_record_a_second_one_and_what_is_not_committed(kafka_bootstrap: str) -> None:
    topic = f"oracle-{time.time_ns()}"
    await inputs.create(kafka_bootstrap, topic)
    await inputs.fill(kafka_bootstrap, topic, HOT, RECORDS)
    expected = inputs.expected_counts(HOT, RECORDS)
    await oracle.check_output(kafka_bootstrap, topic, expected)
    for difference in (1, -1):
        other = Counter(expected)
        other[b"0000007"] += difference
        with pytest.raises(WorkMissing, match="b'0000007' has 2 instead of"):
            await oracle.check_output(kafka_bootstrap, topic, other)
    with pytest.raises(WorkMissing, match="committed"):
        await oracle.check_committed(kafka_bootstrap, f"nobody-{topic}", topic)


@pytest.mark.parametrize("workload", ["json", "avro"])
def test_a_filter_that_lets_other_records_pass_is_found_out(
    trials: Trials, monkeypatch: pytest.MonkeyPatch, workload: str
) -> None:
    monkeypatch.setattr(inputs, "expected_kept", lambda _source, _records: 999)
    with pytest.raises(WorkMissing, match="1000 records passed the filter instead of 999"):
        trials.run(CONTENDERS["getmany"], WORKLOADS[workload])


def test_inputs_stand_where_the_default_partitioner_puts_them_and_half_pass_the_filter() -> None:
    counts = inputs.expected_counts(HOT, RECORDS)
    assert counts.total() == RECORDS
    assert len({partition_for_key(key, PARTITIONS) for key in counts}) == PARTITIONS
    assert inputs.expected_kept(JSON, RECORDS) == inputs.expected_kept(AVRO, RECORDS) == RECORDS // 2


def test_avro_holds_what_json_does() -> None:
    data = inputs.value_of(70, AVRO)
    assert data[0] == 0
    assert int.from_bytes(data[1:5], "big") == 1
    fields = avro_reader()(data)
    assert fields | {"note": "n" * 30} == json.loads(inputs.value_of(70, JSON))
    assert len(data) == pytest.approx(100, abs=10)
