"""``python -m benchmarks.bars``: draws RESULTS.json as docs/performance.svg, and puts it into docs/performance.md."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.report import FIGURES
from benchmarks.results import Results
from benchmarks.workloads import WORKLOADS, Workload

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
"""Between these stands in the page what comes from RESULTS.json."""

WIDTH, LABELS, ROW, GAP = 860, 210, 22, 40
_VALUES = 190
_SHORT = 80


class Bar(NamedTuple):
    label: str
    value: float | None
    """None: there is nothing to draw, and `text` says why."""
    text: str
    is_ours: bool


class Group(NamedTuple):
    title: str
    bars: list[Bar]


def main() -> None:
    publish(Results.read(ROOT / "benchmarks" / "RESULTS.json"), ROOT / "docs")


def publish(results: Results, docs: Path) -> None:
    """Write the drawing, and the part of the page that shows it."""
    (docs / "performance.svg").write_text(drawing(groups_of(results)))
    page = docs / "performance.md"
    page.write_text(with_section(page.read_text(), section(results)))


def groups_of(results: Results) -> list[Group]:
    """A group of bars for each workload that was measured: its first figure, of each contender."""
    return [
        Group(_title(workload), list(_bars(results, workload)))
        for workload in WORKLOADS.values()
        if workload.name in results.runs
    ]


def _title(workload: Workload) -> str:
    heading, _ = FIGURES[workload.figures[0]]
    better = "more is better" if workload.figures[0] == "rate" else "less is better"
    return f"{workload.title}: {heading}, {better}"


def _bars(results: Results, workload: Workload) -> Iterator[Bar]:
    figure = workload.figures[0]
    shape = FIGURES[figure][1]
    mine = results.median(workload.name, OURS, figure)
    why_not = results.missing.get(workload.name, {})
    for contender in CONTENDERS.values():
        value = results.median(workload.name, contender.name, figure)
        if value is not None:
            ratio = f" (ours: {mine / value:.2f}×)" if mine is not None and value and contender.name != OURS else ""
            yield Bar(contender.title, value, shape.format(value) + ratio, contender.name == OURS)
        elif contender.name in why_not:
            yield Bar(contender.title, None, _shortened(why_not[contender.name]), is_ours=False)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def drawing(groups: list[Group]) -> str:
    """The groups below each other, as SVG; the longest bar of each group is as long as there is room."""
    rows = list(_rows(groups))
    height = rows[-1][0] + GAP if rows else GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"',
            ' font-family="sans-serif" font-size="13">',
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *(markup for _, markup in rows),
            "</svg>",
            "",
        ]
    )


def _rows(groups: list[Group]) -> Iterator[tuple[int, str]]:
    """Markup, and how far down it stands."""
    y = 0
    for group in groups:
        y += GAP
        yield y, f'<text x="10" y="{y}" font-weight="bold">{escape(group.title)}</text>'
        longest = max((bar.value for bar in group.bars if bar.value is not None), default=0.0)
        for bar in group.bars:
            y += ROW
            yield y, f'<text x="{LABELS - 10}" y="{y}" text-anchor="end">{escape(bar.label)}</text>'
            if bar.value is None:
                yield y, f'<text x="{LABELS}" y="{y}" fill="#777777">{escape(bar.text)}</text>'
                continue
            length = round((WIDTH - LABELS - _VALUES) * bar.value / longest) if longest else 0
            colour = "#1f5fa8" if bar.is_ours else "#b8bec6"
            yield y, f'<rect x="{LABELS}" y="{y - 13}" width="{max(length, 1)}" height="16" fill="{colour}"/>'
            yield y, f'<text x="{LABELS + length + 6}" y="{y}">{escape(bar.text)}</text>'


def section(results: Results) -> str:
    """What stands in the page."""
    machine = results.machine
    left_out = [each.title for each in WORKLOADS.values() if each.name not in results.runs]
    lines = [
        "![Bars: paperboy beside its peers, by workload](performance.svg)",
        "",
        f"Medians of {results.repeats} runs in turns, {results.measured}, {results.asked:,} records (fewer for slow",
        f"peers), {machine['cores']} cores that the broker shares ({machine['processor']});",
        f"{', '.join(results.versions.values())}.",
        "Spread, CPU time, memory and goals, met and missed: [RESULTS.md](../benchmarks/RESULTS.md). How each is set:",
        "[README.md](../benchmarks/README.md).",
    ]
    if left_out:
        lines += ["", f"Not measured: {'; '.join(left_out)}."]
    lines += ["", "Nor are several workers, a broker across a network, larger values, or a machine with more cores."]
    return "\n".join(lines)


def with_section(page: str, text: str) -> str:
    """The page, with this between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page has no {BEGIN} and {END} to put figures between.")
    return f"{before}{begin}\n{text}\n{end}{after}"


if __name__ == "__main__":
    main()
