"""The pages say what the code says: every option and error stands in them, links lead somewhere, named tests exist."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import paperboy
from paperboy import PaperboyError, RocksDBOptions
from paperboy.engine.options import Options

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOT_OURS = {"build", "dist", "node_modules"}
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in NOT_OURS for part in page.relative_to(ROOT).parts)
)

LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
TEST_NAME = re.compile(r"`(test_\w+)`")
TEST_FUNCTION = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)
TYPE_NAME = re.compile(r"`(\w+)`")


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of every table row of a page's section, without the head."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, f"no section {heading!r}"
    for line in section[1].splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def wrong_options(page: str, section: str = "Options", options: type = Options) -> list[str]:
    """Options that are missing on a page, have another default, or do not exist."""
    said = {TYPE_NAME.sub(r"\1", cells[0]).strip(): cells[1] for cells in rows(page, section)}
    said.pop("option", None)
    true = {field.name: default_of(field) for field in dataclasses.fields(options)}
    return [
        f"{name}: the page says {said.get(name)}, the code {true.get(name)}"
        for name in sorted({*said, *true})
        if said.get(name) != true.get(name)
    ]


def default_of(field: "dataclasses.Field[object]") -> str:
    """As the page has it."""
    if field.default_factory is not dataclasses.MISSING:
        return f"`{type(field.default_factory()).__name__}()`"
    return "needed" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


def wrong_errors(page: str) -> list[str]:
    """Public errors that are missing on a page, and those on it that do not exist."""
    said = {name for cells in rows(page, "The classes") for name in TYPE_NAME.findall(cells[0])}
    public = {
        name
        for name in paperboy.__all__
        if inspect.isclass(kind := getattr(paperboy, name)) and issubclass(kind, PaperboyError)
    }
    return sorted(said ^ public)


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of a page that lead to no file, or to no heading in it."""
    broken = []
    for target in LINK.findall(FENCED.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name
        if (name and not file.exists()) or (anchor and anchor not in anchors(file.read_text() if name else text)):
            broken.append(target)
    return broken


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links, as the public host makes it."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(FENCED.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in plain}


def unknown_tests(page: str) -> list[str]:
    """Tests that a page names and that nobody has written."""
    written = {name for file in (ROOT / "tests").rglob("*.py") for name in TEST_FUNCTION.findall(file.read_text())}
    return [name for name in TEST_NAME.findall(page) if name not in written]


def test_every_option_stands_on_the_page_with_its_default() -> None:
    page = (DOCS / "operating.md").read_text()
    assert wrong_options(page) == []
    assert wrong_options(page, "Tables on disk", RocksDBOptions) == []


def test_every_public_error_stands_on_the_page() -> None:
    assert wrong_errors((DOCS / "errors.md").read_text()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text()) == []


def test_the_tests_that_show_the_guarantees_exist() -> None:
    page = (DOCS / "guarantees.md").read_text()
    assert TEST_NAME.findall(page)
    assert unknown_tests(page) == []


@pytest.mark.parametrize(
    ("stands", "instead"),
    [
        ("| `steps` | `None` |", "| `steps` | `()` |"),
        ("| `steps` | `None` |", "| `stepps` | `None` |"),
        ("| `max_buffer_bytes` | `134217728` |", "| `max_buffer_bytes` | `134217729` |"),
        ("| `group_id` | needed |", "| `group_id` | `None` |"),
    ],
)
def test_the_option_rule_bites(stands: str, instead: str) -> None:
    page = (DOCS / "operating.md").read_text()
    assert stands in page
    assert wrong_options(page.replace(stands, instead))


@pytest.mark.parametrize(
    ("stands", "instead"), [("| `TableError` |", "| `Table` |"), ("| `NotOwner` |", "| `NotOwner`, `Gone` |")]
)
def test_the_error_rule_bites(stands: str, instead: str) -> None:
    page = (DOCS / "errors.md").read_text()
    assert stands in page
    assert wrong_errors(page.replace(stands, instead))


def test_the_link_rule_bites() -> None:
    text = """\
# A page, of `ours`

[here](#a-page-of-ours) [there](../README.md) [outside](https://kafka.apache.org) [folder](../tests)
[nowhere](#nowhere) [gone](gone.md) [no such heading](../CHANGELOG.md#removed-from-history)

```text
[code](is-not-a-link.md)
```
"""
    assert broken_links(DOCS / "page.md", text) == ["#nowhere", "gone.md", "../CHANGELOG.md#removed-from-history"]


def test_the_rule_on_tests_bites() -> None:
    page = "`test_the_rule_on_tests_bites`, `test_that_nobody_wrote`"
    assert unknown_tests(page) == ["test_that_nobody_wrote"]
