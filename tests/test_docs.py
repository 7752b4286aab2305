"""The pages keep their promises: examples load, every key and command is described, and every link leads somewhere.

A block marked ``toml`` is a whole declaration, and one marked ``toml part`` only valid TOML. What a page has in blocks
marked ``env`` is set where its declarations are read.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.cli.commands import COMMANDS
from agent.declaration.envfile import parse_env
from agent.declaration.load import load_text
from agent.declaration.schema import AGENT, OF_KIND, SHARED, Spec
from agent.declaration.show import effective
from agent.declaration.sources import Disk
from agent.paths import Paths
from agent.supervisor.lifecycle import Phase

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
_LITERAL = re.compile(r'`("[^`]*"|true|false|[0-9]+)`')

LEAST = """
[service.capture]
kind = "capture"
interfaces = ["lo"]
[service.armed]
kind = "capture"
interfaces = ["lo"]
trigger = {}
[service.scan]
kind = "scan"
targets = ["127.0.0.1"]
[service.command]
kind = "command"
command = ["/bin/true"]
"""
"""A service of each kind with no key that could be left out; a capture with a table that is none unless written."""


class Documented(Disk):
    """A host that has whatever files a page speaks of, with these variables in them, and secrets that are well kept."""

    def __init__(self, variables: str) -> None:
        self._variables = variables

    def read(self, path: Path) -> str:
        return self._variables

    def projects(self, directory: Path) -> list[Path]:
        return []

    def objection(self, secret: Path, *, credential: bool) -> str | None:
        return None


def blocks(page: Path, info: str) -> list[tuple[int, str]]:
    """The line and the text of each block of a page that is marked so."""
    text = page.read_text()
    return [
        (text.count("\n", 0, found.start("body")) + 1, found["body"])
        for found in _FENCE.finditer(text)
        if found["info"] == info
    ]


def examples(info: str) -> list[object]:
    return [pytest.param(page, body, id=f"{page.name}:{line}") for page in PAGES for line, body in blocks(page, info)]


def keys(fields: Mapping[str, Spec], above: str = "") -> Iterator[str]:
    """Every key of a table of the schema, those of tables inside it dotted."""
    for name, spec in fields.items():
        if spec.shape == "table":
            yield from keys(spec.fields, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def without_code(text: str) -> str:
    return _CODE.sub("", _FENCE.sub("", text))


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page are linked to."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def described() -> dict[str, dict[str, str]]:
    """The keys in the tables of docs/declaration.md whose first column is headed "key", each with its row's cells."""
    found: dict[str, dict[str, str]] = {}
    heads: list[str] = []
    for line in (ROOT / "docs" / "declaration.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        heads = heads if cells and heads else cells
        if heads[:1] == ["key"] and cells != heads:
            found |= {key: dict(zip(heads, cells, strict=True)) for key in _CODE.findall(cells[0])}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for found in _LINK.finditer(without_code(page.read_text())):
        if "://" in found["path"]:
            continue
        target = page.parent / found["path"] if found["path"] else page
        if not target.exists() or (found["anchor"] and found["anchor"] not in anchors(target)):
            broken.append(found[0])
    assert not broken


@pytest.mark.parametrize(("page", "body"), examples("toml"))
def test_a_declaration_in_a_page_has_no_mistakes(page: Path, body: str) -> None:
    variables = "".join(text for _, text in blocks(page, "env"))
    assert not parse_env(variables)[1]
    declaration = load_text(body, Paths.of("/srv"), {}, Documented(variables))
    written = tomllib.loads(body)
    assert set(declaration.services) == set(written.get("service", {}))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_in_a_page_is_a_whole_declaration_or_marked_as_a_part(page: Path) -> None:
    marks = {found["info"] for found in _FENCE.finditer(page.read_text()) if found["info"].startswith("toml")}
    assert marks <= {"toml", "toml part"}
    for _, body in blocks(page, "toml part"):
        assert tomllib.loads(body)


def test_each_kind_has_a_whole_example() -> None:
    shown = [tomllib.loads(body) for _, body in blocks(ROOT / "docs" / "declaration.md", "toml")]
    kinds = {service["kind"] for document in shown for service in document.get("service", {}).values()}
    assert kinds == set(OF_KIND)


@pytest.mark.parametrize(
    "fields", [SHARED, AGENT, *OF_KIND.values()], ids=["shared", "agent", *(kind for kind in OF_KIND)]
)
def test_every_key_of_a_declaration_is_described(fields: Mapping[str, Spec]) -> None:
    assert not set(keys(fields)) - set(described())


def test_every_key_that_is_described_can_be_declared() -> None:
    known = {key for fields in (SHARED, AGENT, *OF_KIND.values()) for key in keys(fields)}
    assert not set(described()) - known


DEFAULTS = {
    key: tomllib.loads(f"default = {literal[1]}")["default"]
    for key, row in described().items()
    if (literal := _LITERAL.fullmatch(row.get("default", "")))
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_default_that_is_described_is_in_force(key: str) -> None:
    shown = effective(load_text(LEAST, Paths.of("/srv"), {}, Documented("")))
    in_force = [
        value for table in (shown["agent"], *shown["service"].values()) if (value := dig(table, key)) is not None
    ]
    assert in_force
    assert set(in_force) == {DEFAULTS[key]}


def dig(table: object, key: str) -> object:
    """The value at a dotted key, ``None`` where there is none."""
    for part in key.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    return table


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_described(name: str) -> None:
    assert re.search(rf"\bagentctl {re.escape(name)}\b(?!-)", (ROOT / "docs" / "agentctl.md").read_text())


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.value)
def test_every_state_is_described(phase: Phase) -> None:
    assert f"| `{phase.value}` |" in (ROOT / "docs" / "supervision.md").read_text()
