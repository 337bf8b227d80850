"""RESULTS.md: the tables that RESULTS.json makes."""

import statistics
from collections.abc import Iterator

from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.results import Results, is_met
from benchmarks.workloads import GOALS, WORKLOADS, Goal, Workload

FIGURES = {
    "rate": ("per second", "{:,.0f}"),
    "seconds": ("seconds", "{:.2f}"),
    "p50_ms": ("p50, ms", "{:.2f}"),
    "p99_ms": ("p99, ms", "{:.2f}"),
    "cpu_sec_per_million": ("CPU s per million", "{:.2f}"),
    "peak_mib": ("peak MiB", "{:,.0f}"),
    "growth": ("last quarter to second", "{:.2f}×"),
}
"""As columns: heading and format, in their order."""


def report(results: Results) -> str:
    return "\n".join([*_head(results), *_goals(results), *_workloads(results), *_not_measured(results)])


def _head(results: Results) -> Iterator[str]:
    machine = results.machine
    yield "# Results"
    yield ""
    yield f"`{results.command}`, {results.measured}: {results.asked:,} records,"
    yield f"{_times(results.repeats)} each, in turns."
    yield (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']},"
        f" Python {machine['python']}; {', '.join(results.versions.values())}. The broker runs on the same machine."
    )
    yield ""
    yield "Medians, and the lowest and highest run in brackets. What the columns mean, and how each peer is set:"
    yield "[README.md](README.md)."
    yield ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _goals(results: Results) -> Iterator[str]:
    rows = [(goal, results.reached(goal, OURS)) for goal in GOALS]
    if all(reached is None for _, reached in rows):
        return
    yield "## Goals"
    yield ""
    yield "| workload | figure | against | reached | goal | |"
    yield "|---|---|---|---|---|---|"
    for goal, reached in rows:
        verdict = "not measured" if reached is None else "met" if is_met(goal, reached) else "missed"
        yield (
            f"| {WORKLOADS[goal.workload].title} | {FIGURES[goal.figure][0]} | {_against(goal)} |"
            f" {'' if reached is None else _shown_reached(goal, reached)} | {_aim(goal)} | {verdict} |"
        )
    yield ""


def _against(goal: Goal) -> str:
    if goal.limit is not None:
        return "a limit of its own"
    if goal.their_workload is not None:
        return f"ourselves, {WORKLOADS[goal.their_workload].title}"
    return " or ".join(CONTENDERS[name].title for name in goal.against)


def _shown_reached(goal: Goal, reached: float) -> str:
    if goal.limit is not None:
        return FIGURES[goal.figure][1].format(reached)
    return f"{reached:+.2f}" if goal.more_at_most is not None else f"{reached:.2f}×"


def _aim(goal: Goal) -> str:
    if goal.limit is not None:
        return f"≤ {FIGURES[goal.figure][1].format(goal.limit)}"
    if goal.at_least is not None:
        return f"≥ {goal.at_least:g}×"
    return f"≤ {goal.at_most:g}×" if goal.at_most is not None else f"≤ +{goal.more_at_most:g}"


def _workloads(results: Results) -> Iterator[str]:
    for workload in WORKLOADS.values():
        if workload.name in results.runs or workload.name in results.missing:
            yield from _table(results, workload)


def _table(results: Results, workload: Workload) -> Iterator[str]:
    runs, missing = results.runs.get(workload.name, {}), results.missing.get(workload.name, {})
    measured = [name for name in CONTENDERS if name in runs]
    figures = workload.figures
    yield f"## {workload.title[0].upper()}{workload.title[1:]}"
    yield ""
    headings = [FIGURES[name][0] for name in figures]
    yield f"| | {' | '.join([*headings, 'ours to it', 'records', ''])} |"
    yield f"|---|{'---|' * (len(figures) + 3)}"
    for name in CONTENDERS:
        if name in runs:
            cells = [_cell(results.values(workload.name, name, figure), FIGURES[figure][1]) for figure in figures]
            ratio = "" if name == OURS else _ratio(results, workload, name, figures[0])
            records = f"{runs[name][0]['records']:,}"
            yield f"| {CONTENDERS[name].title} | {' | '.join([*cells, ratio, records, missing.get(name, '')])} |"
        elif name in missing:
            yield f"| {CONTENDERS[name].title} | {' | '.join([''] * (len(figures) + 2))} | {missing[name]} |"
    yield ""
    for name in measured:
        if workload.name == "memory":
            yield from _resident(CONTENDERS[name].title, runs[name][-1].get("resident_mib", []))


def _cell(values: list[float], shape: str) -> str:
    if not values:
        return ""
    median = shape.format(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({shape.format(min(values))} to {shape.format(max(values))})"


def _ratio(results: Results, workload: Workload, name: str, figure: str) -> str:
    mine = results.median(workload.name, OURS, figure)
    theirs = results.median(workload.name, name, figure)
    return "" if mine is None or not theirs else f"{mine / theirs:.2f}×"


def _resident(title: str, resident: list[float]) -> Iterator[str]:
    if len(resident) >= 4:
        at = [resident[round((len(resident) - 1) * quarter / 4)] for quarter in range(1, 5)]
        yield f"{title}: resident after each quarter of the last run, in MiB: {', '.join(f'{mib:,.0f}' for mib in at)}."
        yield ""


def _not_measured(results: Results) -> Iterator[str]:
    left_out = [workload.title for workload in WORKLOADS.values() if workload.name not in results.runs]
    if left_out:
        yield "## Not measured"
        yield ""
        for title in left_out:
            yield f"- {title}: not in this run."
        yield ""
