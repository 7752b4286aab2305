"""``agentctl scan report``: the page in a real browser, its figures, and what is said of what cannot be."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from agent.cli.main import main
from agent.cli.scan_report_page import page
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.store import ScanStore, Task
from tests.chromium import body, colours, show
from tests.workers.scan.reports import Answer, Machine, report

SCRIPT = "<script>alert('x')</script>"
HOUR = 3600
START = int(time.time()) - 6 * HOUR
"""Drift takes no notice of scans that are old."""


def http(version: str) -> Answer:
    return Answer("open", (("name", "http"), ("product", SCRIPT), ("version", version), ("method", "probed")))


RUNS = (
    {"10.0.0.1": Machine({3: http("1.0")}, names=("web.lan",), mac="02:00:00:00:00:01")},
    {"10.0.0.1": Machine({3: http("2.0")}, names=("web.lan",), mac="02:00:00:00:00:01"), "10.0.0.2": Machine()},
)
SPAN = ("--from", f"@{START - HOUR}", "--to", f"@{START + 4 * HOUR}")


@pytest.fixture
def prefix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A scan with two good runs, and one between them and now that could not see everything."""
    made = tmp_path / "srv"
    for name in ("key", "spool"):
        (made / name).mkdir(parents=True)
    (made / "key" / "env.toml").write_text(
        '[service.lab]\nkind = "scan"\ntargets = ["10.0.0.0/30"]\nports = "1-30"\n'
        '[expect.web]\nhosts = ["10.0.0.1"]\nopen = ["tcp/443"]\nothers = false\n'
    )
    names = []
    for number, machines in enumerate(RUNS):
        path = tmp_path / f"{number}.xml"
        path.write_bytes(report(machines, asked=2, targets="10.0.0.1-2", start=START + number * HOUR))
        names.append(str(path))
    assert main(["--prefix", str(made), "scan", "import", "lab", *names]) == 0
    store = ScanStore(made / "spool" / "lab" / "scan.db")
    run = store.begin(Task("plan", 2, 1, profile="services"), START + 2 * HOUR)
    store.store(run, [], START + 2 * HOUR, chunk=0, addresses=2, asked=asked(["10.0.0.1", "10.0.0.2"]))
    store.end(run, "finished", START + 2 * HOUR + 60, degraded="2 of 3 canaries went missing")
    store.close()
    capsys.readouterr()
    return made


def figures(prefix: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["--prefix", str(prefix), "scan", "report", *words, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_the_page_shows_all_of_it_in_a_browser(
    prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "report.html"
    assert main(["--prefix", str(prefix), "scan", "report", *SPAN, "-o", str(target)]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: ")
    shown = show(target, tmp_path)
    assert shown.console == []
    assert shown.asked == [], "the page asks for something beside itself"
    words = re.sub(r"[ \n]+", " ", body(shown.dom))
    for heading in ("Ports and hosts over time", "What changed", "Not as declared", "Hosts now", "How to read this"):
        assert heading in words
    assert "3 runs 1 degraded or unfinished" in words
    assert "0 open ports on 0 hosts in run 3" in words
    assert "version changed" in words and "web.lan" in words and "02:00:00:00:00:01" in words
    assert "of them grave" in words and "open undeclared" in words
    # What is hostile is text, and nothing else.
    assert "<script" not in shown.dom
    assert "&lt;script&gt;alert('x')&lt;/script&gt;" in words
    assert shown.dom.count("<svg") == 2 and shown.dom.count('class="drop"') == 2
    seen = colours(shown.picture)
    assert sum(count for colour, count in seen.items() if colour[2] > colour[0] + 80) > 300, "no line of ports is drawn"


def test_rows_of_drift_beyond_those_that_are_told_are_counted(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = figures(prefix, capsys)
    assert told["left_out"] == 0
    row = next(row for row in told["drift"] if row["severity"] == "high")
    told |= {"drift": [row] * 10_000, "left_out": 800}
    made = page(told).replace("\u202f", " ")
    assert "<b>10 800</b><span>not as declared</span><i>10 000+ of them grave</i>" in made
    assert "and 8 800 more<" in made
    told["drift"][-1] = row | {"severity": "low"}
    assert "<i>9 999 of them grave</i>" in page(told).replace("\u202f", " ")


def test_a_run_that_is_under_way_is_told_as_that_and_counts_for_nothing_yet(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ScanStore(prefix / "spool" / "lab" / "scan.db")
    store.begin(Task("plan", 2, 1, profile="services"), START + 3 * HOUR)
    told = figures(prefix, capsys, *SPAN)
    store.close()
    assert [run["status"] for run in told["scans"][0]["runs"]][-1] == "running"
    made = page(told)
    assert "<b>4</b><span>runs</span><i>1 degraded or unfinished, 1 under way</i>" in made
    assert "<p>0 open ports on 0 hosts in run 3; run 4 is under way</p>" in made
    assert made.count('class="drop"') == 2, "the run before it is the only one that is marked, in each chart"
    told["scans"][0]["runs"] = told["scans"][0]["runs"][-1:]
    assert "No run has ended in this time; run 4 is under way." in page(told)


def test_a_run_that_began_before_the_time_and_ended_in_it_is_one_of_its_runs(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = figures(prefix, capsys, "lab", "--from", f"@{START + HOUR + 5}", "--to", f"@{START + HOUR + 90}")
    assert {one["run"] for one in told["changes"]} == {2}
    assert [run["run"] for run in told["scans"][0]["runs"]] == [2]


def test_the_site_is_told_where_an_address_alone_does_not_say_which_host_is_meant(
    prefix: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = figures(prefix, capsys, *SPAN)
    (site,) = {one["site"] for one in (*told["hosts"], *told["changes"])}
    assert site and f"<i>{site}</i>" not in page(told | {"drift": []})
    (first, *_), (change, *_) = told["hosts"], told["changes"]
    there = told | {"drift": [], "hosts": [first, first | {"site": "<other>"}], "changes": []}
    assert page(there).count(f"<i>{site}</i>") == page(there).count("<i>&#60;other&#62;</i>") == 1
    there |= {"hosts": [first], "changes": [change | {"site": "<other>"}]}
    assert page(there).count(f"<i>{site}</i>") == page(there).count("<i>&#60;other&#62;</i>") == 1


def test_the_figures_are_those_of_the_time_that_was_asked_for(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = figures(prefix, capsys, "lab", "--from", f"@{START - 5}", "--to", f"@{START + HOUR + 90}")
    (scan,) = told["scans"]
    assert [run["run"] for run in scan["runs"]] == [1, 2]
    changes = told["changes"]
    assert isinstance(changes, list)
    assert [(one["kind"], one["address"], one["number"]) for one in changes if one["run"] == 2] == [
        ("version_changed", "10.0.0.1", 3),
        ("host_new", "10.0.0.2", 0),
    ]
    assert isinstance(told["drift"], list)
    assert {row["kind"] for row in told["drift"]} >= {"open_undeclared"}


def test_without_a_declaration_nothing_is_said_to_be_as_declared(
    prefix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (prefix / "key" / "env.toml").unlink()
    told = figures(prefix, capsys)
    assert told["drift"] is None
    assert "nothing is declared here" in page(told)
    (prefix / "key" / "env.toml").write_text("[service.lab]\n")
    assert main(["--prefix", str(prefix), "scan", "report", *SPAN, "-o", str(tmp_path / "x.html")]) == 0
    assert "drift is left out" in capsys.readouterr().err
    assert "drift is left out: " in (tmp_path / "x.html").read_text()


def test_a_page_needs_a_place_to_go_and_something_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spool").mkdir()
    assert main(["--prefix", str(tmp_path), "scan", "report"]) == 1
    assert capsys.readouterr().err.startswith("agentctl: name the file that the page is to go to")
    assert main(["--prefix", str(tmp_path), "scan", "report", "--json"]) == 2
    assert capsys.readouterr().err == f"agentctl: no scans are stored below {tmp_path / 'spool'}\n"
