"""The pages keep their promises: examples load, every key and command is described, and every link leads somewhere.

A block marked ``toml`` is a whole declaration, and one marked ``toml part`` only valid TOML. What a page has in blocks
marked ``env`` is set where its declarations are read.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from agent.cli import commands
from agent.cli.commands import CAPTURE, COMMANDS, FLOWS, SCAN
from agent.cli.main import main
from agent.declaration.envfile import parse_env
from agent.declaration.load import load_text
from agent.declaration.schema import AGENT, EXPECT, NOTIFY, OF_KIND, SCANNING, SHARED, Spec
from agent.declaration.show import effective
from agent.declaration.sources import Disk
from agent.paths import Paths
from agent.supervisor.lifecycle import Phase
from agent.workers.capture import pins
from tests.workers.flows import traffic
from tests.workers.flows.traffic import NOON
from tests.workers.scan.reports import START, Answer, Machine, report

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
[service.asking]
kind = "scan"
targets = ["127.0.0.1"]
profile = "services"
[service.command]
kind = "command"
command = ["/bin/true"]
[expect.hosts]
hosts = ["127.0.0.1"]
open = [22]
[notify.root]
email = "root"
"""
"""A service of each kind with no key that could be left out, and those that more keys belong to."""


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
        if spec.item is not None and spec.item.table is not None:
            yield from keys(spec.item.table.fields, f"{above}{name}.")


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
    assert set(declaration.services) - {"watch"} == set(written.get("service", {}))
    assert set(declaration.expects) == set(written.get("expect", {}))
    assert set(declaration.notifies) == set(written.get("notify", {}))


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


SECTIONS = {"scanning": SCANNING, "expect": EXPECT, "notify": NOTIFY}
"""Tables whose keys are described with the name of the section before them."""

DECLARED: dict[str, list[str]] = {
    "shared": list(keys(SHARED)),
    "agent": list(keys(AGENT)),
    **{kind: list(keys(fields)) for kind, fields in OF_KIND.items()},
    **{name: list(keys(fields, f"{name}.")) for name, fields in SECTIONS.items()},
}


@pytest.mark.parametrize("table", DECLARED)
def test_every_key_of_a_declaration_is_described(table: str) -> None:
    assert not set(DECLARED[table]) - set(described())


def test_every_key_that_is_described_can_be_declared() -> None:
    known = {key for found in DECLARED.values() for key in found}
    assert not set(described()) - known


DEFAULTS = {
    key: tomllib.loads(f"default = {literal[1]}")["default"]
    for key, row in described().items()
    if (literal := _LITERAL.fullmatch(row.get("default", "")))
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_default_that_is_described_is_in_force(key: str) -> None:
    shown = effective(load_text(LEAST, Paths.of("/srv"), {}, Documented("")))
    written = tomllib.loads(LEAST)["service"]
    services = [table for name, table in shown["service"].items() if dig(written[name], key) is None]
    sections = [{name: one} for name in ("expect", "notify") for one in shown[name].values()]
    tables = [shown["agent"], {"scanning": shown["scanning"]}, *services, *sections]
    in_force = [value for table in tables if (value := dig(table, key)) is not None]
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


GROUPS = {"capture": CAPTURE, "expect": commands.EXPECT, "flows": FLOWS, "scan": SCAN}
SUBCOMMANDS = [f"{group} {name}" for group, table in GROUPS.items() for name in table]


@pytest.mark.parametrize("words", SUBCOMMANDS)
def test_every_command_of_a_group_is_described(words: str) -> None:
    text = (ROOT / "docs" / "agentctl.md").read_text()
    assert re.search(rf"`agentctl {words}\b", text)


def shapes() -> dict[str, str]:
    """What docs/agentctl.md says of the JSON of each command."""
    found: dict[str, str] = {}
    text = (ROOT / "docs" / "agentctl.md").read_text()
    for row in re.findall(r"^\| (`.+`) \| (.+) \|$", text.partition("| command | shape |")[2], re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", row[0]), row[1])
    return found


def test_every_command_that_prints_json_has_its_shape_in_the_table() -> None:
    named = {words.partition(" NAME")[0] for words in shapes()}
    needed = {*COMMANDS, *SUBCOMMANDS} - {*GROUPS}  # `flows` alone is in the table, too
    assert not {words for words in needed if not any(one == words or one.startswith(f"{words} ") for one in named)}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A prefix with an armed capture that has stored something."""
    prefix = tmp_path / "srv"
    store = prefix / "spool" / "edge"
    traffic.store(store, "eth0", [traffic.mixed(1, 50, NOON)])
    pins.add(store, NOON, NOON + 1, created=NOON, reason="the outage", by="ann")
    (prefix / "key").mkdir()
    (prefix / "key" / "env.toml").write_text(
        '[service.edge]\nkind = "capture"\ninterfaces = ["eth0"]\ntrigger = { before = "1s" }\n'
    )
    reports = report({"10.0.0.1": WEB}), report({"10.0.0.1": Machine()}, start=START + 60)
    for number, text in enumerate(reports):
        (tmp_path / f"{number}.xml").write_bytes(text)
    assert (
        main(["--prefix", str(prefix), "scan", "import", "lab", *(str(tmp_path / f"{one}.xml") for one in (0, 1))]) == 0
    )
    return prefix


WEB = Machine({3: Answer("open", (("name", "http"), ("product", "nginx"), ("method", "probed")))})

SPAN = ("--from", "2026-11-20T14:00Z", "--to", "2026-11-20T15:00Z")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("capture list", ()),
        ("capture pins", ()),
        ("capture pin", ("edge", "--last", "1m")),
        ("capture unpin", ("edge", "PIN")),
        ("capture trigger", ("edge",)),
        ("capture query", ("tcp", "--limit", "1")),
        ("capture query", ("tcp", "-o", "FILE")),
        ("capture report", SPAN),
        ("capture report", (*SPAN, "-o", "FILE")),
        *(("flows", ("--by", by, *SPAN)) for by in ("host", "pair", "port", "proto", "flow")),
        ("flows export", ("-o", "FILE", *SPAN)),
        ("scan list", ()),
        ("scan show", ("lab", "1")),
        ("scan hosts", ()),
        ("scan diff", ("lab", "1", "2")),
        ("scan report", ()),
        ("scan export", ("csv", "lab", "1", "-o", "FILE")),
        ("scan import", ("other", "REPORT")),
        ("hosts", ()),
        ("top", ("--interval", "200ms")),
        ("calendar", ("daily",)),
        ("validate", ()),
        ("completion", ("bash",)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_json_of_a_command_has_the_keys_that_are_described(
    prefix: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    awake: None,
    words: str,
    options: tuple[str, ...],
) -> None:
    if "PIN" in options:
        (pin,) = pins.read_all(prefix / "spool" / "edge")
        options = tuple(pin.id if word == "PIN" else word for word in options)
    files = {"FILE": str(tmp_path / "file"), "REPORT": str(tmp_path / "0.xml")}
    options = tuple(files.get(word, word) for word in options)
    capsys.readouterr()
    assert main(["--prefix", str(prefix), *words.split(), *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    described = shapes()[words] + "".join(shapes()[other] for other in REFERRED.get(words, ()))
    if words in ("flows", "top"):
        described += (ROOT / "docs" / "flows.md").read_text()
    if words == "top":
        described += (ROOT / "docs" / "capture.md").read_text()
    assert not {key for key in keys_of(told) if f'"{key}"' not in described and f"`{key}`" not in described}


REFERRED = {
    "capture query": ("capture stream",),
    "capture report": ("flows",),
    "scan show": ("scan list",),
    "scan report": ("scan list", "scan hosts", "drift"),
}
"""Where a shape has the words PACKET, ROW and RUN, their keys are told in the rows of others."""


def keys_of(value: object) -> set[str]:
    """The keys of a document, at every depth."""
    if isinstance(value, dict):
        return {*value, *(key for inner in value.values() for key in keys_of(inner))}
    return {key for inner in value for key in keys_of(inner)} if isinstance(value, list) else set()
