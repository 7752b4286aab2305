"""What is said of hosts that say open to everything, in every command that shows hosts or runs; and of many ports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main
from agent.cli.scan_words import ports
from agent.workers.scan.found import Host, Port, Rest
from agent.workers.scan.outcome import ON_EVERY_PORT
from agent.workers.scan.store import ScanStore, Task

START = 1_795_000_000.0
ORDINARY = Host(
    "10.0.0.9",
    "up",
    "syn-ack",
    names=("web.lan",),
    ports=(Port("tcp", 80, "open", "syn-ack"),),
    os=("Linux 5.0 - 5.4 (96 %)",),
)
BEFORE = Host(
    "10.0.0.1",
    "up",
    "syn-ack",
    ports=(Port("tcp", 80, "open", "syn-ack"),),
    rest=(Rest("tcp", "closed", "reset", ((1, 79), (81, 81), (83, 1000))),),
)
AFTER = Host(
    "10.0.0.1",
    "up",
    "syn-ack",
    rest=(
        Rest("tcp", "open", ON_EVERY_PORT, ((1, 81), (83, 1000))),
        Rest("udp", "closed", "port-unreach", ((53, 53),)),
    ),
)
WORDS = "says open to everything (999 ports asked)"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "env.toml").write_text(
        '[service.lab]\nkind = "scan"\ntargets = ["10.0.0.0/28"]\nports = "1-1000"\n'
    )
    store = ScanStore(tmp_path / "spool" / "lab" / "scan.db")
    for number, host in enumerate((BEFORE, AFTER, AFTER)):
        run = store.begin(Task("plan", 2, 1, profile="ports"), START + 100 * number)
        store.store(run, [host, ORDINARY], START + 100 * number, chunk=0, addresses=2)
        store.end(run, "finished", START + 100 * number + 10)
    store.close()
    return tmp_path


def said(prefix: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["--prefix", str(prefix), "scan", *words]) == 0
    return capsys.readouterr().out


def told(prefix: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(said(prefix, capsys, *words, "--json"))


def test_every_command_says_it_in_words(prefix: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    first, second, third = sorted(said(prefix, capsys, "list").splitlines()[1:])
    assert "everything" not in first
    assert second.endswith("  1 host open to everything")
    assert third.endswith("  1 host open to everything")
    shown = said(prefix, capsys, "show")
    assert f"10.0.0.1  -       up     -    {WORDS}; 1 closed\n" in shown
    assert "note: 1 host open to everything\n" in shown
    assert "1,000 open" not in shown
    assert f"  {WORDS}\n" in said(prefix, capsys, "hosts")
    difference = said(prefix, capsys, "diff", "1", "2")
    [row] = [line for line in difference.splitlines() if line.startswith("10.0.0.1 ")]
    assert row.split(maxsplit=4) == ["10.0.0.1", "tcp/1-79,81,83-1000", "port_opened", "closed", "open to everything"]
    assert "open to everything" not in said(prefix, capsys, "diff", "2", "3")
    page = tmp_path / "report.html"
    said(prefix, capsys, "report", "--from", f"@{START - 1:.0f}", "--to", f"@{START + 999:.0f}", "-o", str(page))
    assert WORDS in page.read_text()
    exported = tmp_path / "run.md"
    said(prefix, capsys, "export", "markdown", "lab", "-o", str(exported))
    assert WORDS in exported.read_text()


def test_names_and_the_system_stand_below_the_ports(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("show",), ("hosts",)):
        assert said(prefix, capsys, *words).endswith("  names: web.lan; system: Linux 5.0 - 5.4 (96 %)\n")


def test_json_has_figures_of_it(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [scan] = told(prefix, capsys, "list")["scans"]
    assert [run["open_to_everything"] for run in scan["runs"]] == [1, 1, 0]
    assert [run["ports_open"] for run in scan["runs"]] == [1, 1, 2]
    shown = told(prefix, capsys, "show", "lab", "2")
    assert [host["open_to_everything"] for host in shown["hosts"]] == [999, 0]
    hosts = told(prefix, capsys, "hosts")["hosts"]
    assert [host["open_to_everything"] for host in hosts] == [999, 0]
    assert [port["number"] for port in hosts[0]["ports"]] == [80], "it was open before, and is not known to be closed"


@pytest.mark.parametrize(
    ("listed", "shown"),
    [
        ("22,80-90,udp/53", "22,80-90,udp/53"),
        (
            ",".join(map(str, range(1, 400, 2))) + ",udp/53",
            f"200 tcp and 1 udp: {','.join(map(str, range(1, 56, 2)))},...",
        ),
        ("no ports, " * 20, f"{'no ports, ' * 7}no ports,..."),
    ],
)
def test_of_many_ports_the_first_are_shown(listed: str, shown: str) -> None:
    assert ports(listed) == shown
