"""``agentctl scan`` about what is stored: import, list, show, hosts, diff and export, as a person types them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import pytest

from agent.cli.main import main
from agent.declaration.sources import Disk
from agent.workers.scan.memory.coverage import asked
from agent.workers.scan.store import ScanStore, Task
from tests.workers.scan.reports import START, Answer, Machine, report

SSH = (("name", "ssh"), ("product", "OpenSSH"), ("version", "9.2p1"), ("method", "probed"), ("conf", "10"))
HTTP = (("name", "http"), ("product", "nginx"), ("version", "1.22.1"), ("method", "probed"), ("conf", "10"))
TARGETS = "10.0.0.1-4"

BEFORE = {
    "10.0.0.1": Machine({22: Answer("open", SSH)}, names=("gw.lan",)),
    "10.0.0.2": Machine({22: Answer("open", SSH), 8: Answer("open", HTTP)}),
}
AFTER = {
    "10.0.0.1": Machine({22: Answer("open", (*SSH[:2], ("version", "9.6p1"), *SSH[3:]))}, names=("gw.lan",)),
    "10.0.0.3": Machine({23: Answer("open")}),
}
DAY = 86_400

Ctl = Callable[..., int]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "srv"
    (prefix / "spool").mkdir(parents=True)
    return prefix


@pytest.fixture
def ctl(prefix: Path) -> Ctl:
    return lambda *words: main(["--prefix", str(prefix), "scan", *words])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Two reports of nmap about four addresses, a day apart."""
    paths = tmp_path / "before.xml", tmp_path / "after.xml"
    for path, machines, start in zip(paths, (BEFORE, AFTER), (START, START + DAY), strict=True):
        path.write_bytes(report(machines, asked=4, targets=TARGETS, start=start))
    return str(paths[0]), str(paths[1])


CHANGES = [
    ("version_changed", "10.0.0.1", "22", "ssh OpenSSH 9.2p1", "ssh OpenSSH 9.6p1"),
    ("host_gone", "10.0.0.2", "", "tcp/8, tcp/22", ""),
    ("host_new", "10.0.0.3", "", "", "tcp/23"),
    ("port_opened", "10.0.0.3", "23", "", "open"),
]


def changes(document: str) -> list[tuple[str, ...]]:
    return [
        tuple(one[key] for key in ("kind", "address", "ports", "before", "after"))
        for one in json.loads(document)["changes"]
    ]


def test_two_files_are_compared(ctl: Ctl, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ctl("diff", *files, "--json") == 0
    told = capsys.readouterr().out
    assert changes(told) == CHANGES
    assert json.loads(told)["compared"] == {"hosts": 3, "ports": 30}
    assert ctl("diff", *files, "--exit-code") == 2
    shown = capsys.readouterr().out.splitlines()
    assert shown[2].split() == ["ADDRESS", "PORT", "CHANGE", "BEFORE", "AFTER"]
    assert shown[-1] == "1 version_changed, 1 host_gone, 1 host_new, 1 port_opened; compared: 3 hosts, 30 ports"
    assert ctl("diff", files[0], files[0], "--exit-code") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no changes; compared: 2 hosts, 60 ports"


def test_runs_are_compared_as_they_were_imported(
    ctl: Ctl, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("import", "lab", files[1], files[0], "--json") == 0
    stored = json.loads(capsys.readouterr().out)["imported"]
    assert [(one["run"], one["started"]) for one in stored] == [(1, START), (2, START + DAY)]
    for words in ((), ("lab",), ("1", "2"), ("lab", "previous", "last"), ("-2", "-1"), ("lab", f"@{START + 5}", "now")):
        assert ctl("diff", *words, "--json") == 0
        assert changes(capsys.readouterr().out) == CHANGES
    assert ctl("diff", "1", files[1], "--json") == 0
    assert changes(capsys.readouterr().out) == CHANGES
    assert ctl("diff", "2", "1", "--exit-code") == 2


def test_without_knowing_what_was_asked_nobody_is_gone_unless_one_is_told_to_believe_it(
    ctl: Ctl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = []
    for name, machines in (("a.xml", BEFORE), ("b.xml", AFTER)):
        (tmp_path / name).write_bytes(report(machines, asked=4, targets="-iL hosts"))
        names.append(str(tmp_path / name))
    assert ctl("diff", *names, "--json") == 0
    told = capsys.readouterr()
    assert changes(told.out) == CHANGES[:1]
    assert "1 host of the first run not compared: the second did not ask for them" in json.loads(told.out)["notes"]
    assert "a.xml: 2 hosts that did not answer are not named: they are not taken for down" in told.err
    assert ctl("diff", *names, "--same-targets", "--json") == 0
    assert changes(capsys.readouterr().out) == CHANGES


@pytest.mark.parametrize("stored", [False, True], ids=["files", "runs"])
def test_a_host_that_nmap_gave_up_on_is_not_gone_either_where_both_are_believed_to_have_asked_for_the_same(
    ctl: Ctl, files: tuple[str, str], capsys: pytest.CaptureFixture[str], stored: bool
) -> None:
    late = report({"10.0.0.1": Machine(), "10.0.0.2": Machine()}, start=START + DAY)
    Path(files[1]).write_bytes(
        late.replace(
            b'<host starttime="1700000000" endtime="1700000000"><status state="up" re'
            b'ason="arp-response" reason_ttl="0"/><address addr="10.0.0.2"',
            b'<host timedout="true"><address addr="10.0.0.2"',
        )
    )
    if stored:
        assert ctl("import", "lab", *files) == 0
    capsys.readouterr()
    assert ctl("diff", *(("1", "2") if stored else files), "--same-targets", "--json") == 0
    told = capsys.readouterr().out
    assert not [change for change in changes(told) if change[1] == "10.0.0.2"]
    assert "1 host of the first run not compared: the second did not ask for them" in json.loads(told)["notes"]


def test_runs_of_different_sites_are_not_compared(
    ctl: Ctl, prefix: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = prefix / "spool" / "lab" / "scan.db"

    def ran(site: str, day: int) -> None:
        store = ScanStore(path, site=site)
        run = store.begin(Task("plan", 4, 1), START + day * DAY)
        store.store(run, [], START + day * DAY, chunk=0, addresses=4, asked=asked([f"10.0.0.{day}"]))
        store.end(run, "finished", START + day * DAY + 9)
        store.close()

    ran("here", 1)
    ran("there", 2)
    assert ctl("diff") == 2
    assert complaint(capsys) == "agentctl: lab at the site there has finished 1 run so far"
    refused = "agentctl: run 1 of lab is of the site here and run 2 of lab is of the site there: these are other hosts,"
    for words in (("1", "2"), ("previous", "last")):
        assert ctl("diff", *words) == 1
        assert complaint(capsys).startswith(refused)
    ran("here", 3)
    assert ctl("diff", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["first"]["run"], told["second"]["run"]) == (1, 3)
    assert ctl("diff", "2", files[0]) == 0  # a file has no site: who names it says that it is the same


@pytest.mark.parametrize("ending", ["interrupted", "degraded"])
def test_a_run_that_did_not_see_all_closes_nothing(
    ctl: Ctl, prefix: Path, files: tuple[str, str], capfd: pytest.CaptureFixture[str], ending: str
) -> None:
    assert ctl("import", "lab", files[0]) == 0
    store = ScanStore(prefix / "spool" / "lab" / "scan.db", site=Disk().server())
    run = store.begin(Task("plan", 4, 1, profile="services"), START + DAY)
    store.store(run, [], START + DAY, chunk=0, addresses=4, asked=asked([f"10.0.0.{n}" for n in range(1, 5)]))
    if ending == "degraded":
        store.end(run, "finished", START + DAY + 9, degraded="2 of 3 canaries went missing")
    else:
        store.end(run, "interrupted", START + DAY + 9)
    store.close()
    capfd.readouterr()
    assert ctl("diff", "1", "2", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["changes"] == []
    assert told["withheld"] == 2
    doubt = "degraded: 2 of 3 canaries went missing" if ending == "degraded" else "unfinished: it was interrupted"
    assert told["second"]["doubt"] == doubt
    assert (
        f"the second run is {doubt}: nothing is said to be gone or closed by it (2 changes not told)" in told["notes"]
    )
    assert ctl("list") == 0
    assert ending in capfd.readouterr().out.splitlines()[1]
    assert ctl("show", "-1") == 0
    shown = capfd.readouterr().out
    assert "covered: 4 of 4 addresses: 0 answered, 4 did not" in shown
    assert ctl("export", "xml", "-1") == 0
    finished = ElementTree.fromstring(capfd.readouterr().out).find("runstats/finished")
    assert finished is not None
    assert (finished.get("exit"), finished.get("errormsg")) == ("error", doubt)


def test_what_is_stored_is_listed_and_shown(
    ctl: Ctl, prefix: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("list") == 0
    assert capsys.readouterr().out == f"no scans are stored below {prefix / 'spool'}\n"
    assert ctl("import", "lab", *files) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{files[0]}: run 1 of lab: 2 hosts up, 3 ports open, by nmap 7.93",
        f"{files[1]}: run 2 of lab: 2 hosts up, 2 ports open, by nmap 7.93",
    ]
    assert ctl("list", "--json") == 0
    (scan,) = json.loads(capsys.readouterr().out)["scans"]
    newest = scan["runs"][0]
    assert (scan["scan"], newest["run"], newest["status"], newest["seconds"]) == ("lab", 2, "imported", 60.0)
    assert (newest["hosts_total"], newest["hosts_up"], newest["ports_open"]) == (4, 2, 2)
    assert ctl("show", "1") == 0
    shown = capsys.readouterr().out.splitlines()
    assert any(line.endswith("covered: 4 of 4 addresses: 2 answered, 2 did not") for line in shown)
    assert "10.0.0.2  tcp/8   open   no   http nginx 1.22.1" in shown
    assert ctl("show", "lab", "previous", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [host["address"] for host in told["hosts"]] == ["10.0.0.1", "10.0.0.2"]
    assert told["asked"][0]["addresses"] == [["10.0.0.3", "10.0.0.4"]]
    assert told["asked"][0]["ports"] == {"tcp": "1-30"}


def test_a_host_that_was_only_taken_to_be_up_has_not_answered(
    ctl: Ctl, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = {"10.0.0.1": Machine({22: Answer("open", SSH)}), "10.0.0.2": Machine(others="filtered")}
    written = report(machines, options="-Pn").replace(b"arp-response", b"user-set")
    path = tmp_path / "pn.xml"
    path.write_bytes(written)
    assert ctl("import", "lab", str(path)) == 0
    assert capsys.readouterr().out == f"{path}: run 1 of lab: 1 host up, 1 port open, by nmap 7.93\n"
    assert ctl("show") == 0
    shown = capsys.readouterr().out
    assert "covered: 2 of 2 addresses: 1 answered, 1 did not\n" in shown
    assert "found: 1 host up, 1 port open\n" in shown
    assert ctl("hosts", "--json") == 0
    assert [host["address"] for host in json.loads(capsys.readouterr().out)["hosts"]] == ["10.0.0.1"]


def test_what_is_so_now_is_shown_with_since_when(
    ctl: Ctl, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("import", "lab", *files) == 0
    capsys.readouterr()
    assert ctl("hosts", "--json") == 0
    found = {host["address"]: host for host in json.loads(capsys.readouterr().out)["hosts"]}
    (port,) = found["10.0.0.1"]["ports"]
    assert (port["number"], port["version"]) == (22, "9.6p1")
    assert START <= port["first_seen"] <= START + 60
    assert START + DAY <= port["last_seen"] <= START + DAY + 60
    assert ctl("hosts") == 0
    heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split()[:4] == ["SCAN", "ADDRESS", "PORT", "STATE"]
    assert any(row.endswith("ssh OpenSSH 9.6p1") for row in rows)


def test_what_went_is_shown_when_it_is_asked_for(
    ctl: Ctl, prefix: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("import", "lab", files[0]) == 0
    store = ScanStore(prefix / "spool" / "lab" / "scan.db", site=Disk().server())
    for number in (1, 2):  # the second miss counts
        run = store.begin(Task("plan", 1, 1), START + number * DAY)
        ports = (("tcp", ((1, 30),)),)
        store.store(run, [], START + number * DAY, chunk=0, addresses=1, asked=asked(["10.0.0.2"], ports))
        store.end(run, "finished", START + number * DAY + 9)
    store.close()
    capsys.readouterr()

    def shown(*words: str) -> dict[str, str]:
        assert ctl("hosts", "lab", "--json", *words) == 0
        return {host["address"]: host["state"] for host in json.loads(capsys.readouterr().out)["hosts"]}

    assert shown() == {"10.0.0.1": "up"}
    assert shown("--gone") == {"10.0.0.1": "up", "10.0.0.2": "gone"}
    assert ctl("list", "--runs", "2") == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["RUN", "3", "2"]


def test_a_run_is_exported_in_each_form(
    ctl: Ctl, tmp_path: Path, files: tuple[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert ctl("import", "lab", *files) == 0
    capfd.readouterr()
    target = tmp_path / "out.xml"
    assert ctl("export", "xml", "lab", "1", "-o", str(target)) == 0
    assert capfd.readouterr().out == f"{target}: 2 hosts as xml\n"
    assert ctl("diff", files[0], str(target)) == 0
    assert "no changes; compared: 2 hosts, 60 ports" in capfd.readouterr().out
    assert subprocess.run(["ndiff", "--text", str(target), files[1]], capture_output=True, check=False).returncode == 1
    assert ctl("export", "csv", "1") == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert [row["port"] for row in rows if row["state"] == "open"] == ["22", "8", "22"]
    assert ctl("export", "json", "lab") == 0
    assert json.loads(capfd.readouterr().out)["scan"] == "lab 2"
    assert ctl("export", "markdown", "lab", "1") == 0
    assert "| 10.0.0.2 |  | tcp/8 | open | http nginx 1.22.1 |" in capfd.readouterr().out
    assert ctl("export", "csv", "1", "-o", str(tmp_path / "x.csv"), "--json") == 0
    assert json.loads(capfd.readouterr().out)["hosts"] == 2


def test_what_nmap_itself_said_in_a_run_comes_back_as_one_document(
    ctl: Ctl, prefix: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = [report(machines, asked=4, targets=TARGETS, start=START) for machines in (BEFORE, AFTER)]
    store = ScanStore(prefix / "spool" / "lab" / "scan.db")
    for status in ("finished", "failed", "finished"):
        run = store.begin(Task(status, 1, 1, "{}"), float(START))
        for document in told if status != "finished" or run.id == 1 else ():
            store.store(run, (), float(START), raw=document)
        store.end(run, status, START + 9.0, "no route")
    store.close()
    capfd.readouterr()
    target = tmp_path / "nmap.xml"
    assert ctl("export", "raw", "lab", "1", "-o", str(target)) == 0
    assert capfd.readouterr().out == f"{target}: 4 hosts as raw\n"
    assert target.read_bytes().count(b'version="9.2p1"') == 2
    same = subprocess.run(["ndiff", str(target), str(target)], capture_output=True, check=True)
    assert same.stderr == b""
    assert ctl("export", "raw", "1", "--json", "-o", str(target)) == 0
    assert json.loads(capfd.readouterr().out)["hosts"] == 4
    assert ctl("export", "raw", "lab", "2") == 0
    assert 'exit="error" errormsg="unfinished: it failed"' in capfd.readouterr().out
    assert ctl("export", "raw", "lab", "3", "-o", str(tmp_path / "none.xml")) == 2
    assert complaint(capfd) == "agentctl: no XML of nmap's is kept of lab 3: it took no part, or too long ago"
    assert not (tmp_path / "none.xml").exists()


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_nothing_of_an_import_is_stored_when_one_file_cannot_be_used(
    ctl: Ctl, prefix: Path, tmp_path: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_bytes(Path(files[0]).read_bytes()[:700])
    assert ctl("import", "lab", files[0], str(broken)) == 2
    assert complaint(capsys).startswith(
        f"agentctl: {broken}: the report stops before its end: whoever wrote it did not"
    )
    assert not (prefix / "spool" / "lab").exists()
    assert ctl("import", "lab", str(tmp_path / "none.xml")) == 1
    assert complaint(capsys) == f"agentctl: {tmp_path / 'none.xml'}: there is no such file"
    assert ctl("import", "lab", files[0]) == 0
    capsys.readouterr()
    assert ctl("import", "lab", files[1], files[0]) == 1
    assert complaint(capsys) == f"agentctl: {files[0]}: it was imported already: run 1 of lab"
    assert ctl("diff", "1", "2") == 1
    assert complaint(capsys) == "agentctl: lab has no run 2; there is 1"


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("empty", 2, "it is empty"),
        ("packed", 2, "it is no XML report of nmap or masscan"),
        ("of_utf16", 2, "it is no XML report of nmap or masscan"),
        ("appended", 2, "more follows the end of the report, such as what --append-output adds"),
        ("listing", 2, "it is no XML report of nmap or masscan"),
        ("directory", 2, "cannot be read: Is a directory"),
        ("loop", 2, "cannot be read: Too many levels of symbolic links"),
        ("dangling", 1, "there is no such file"),
    ],
)
def test_what_is_no_report_is_named_in_one_line(
    ctl: Ctl,
    tmp_path: Path,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    kind: str,
    code: int,
    reason: str,
) -> None:
    whole, odd = Path(files[0]).read_bytes(), tmp_path / "odd.xml"
    match kind:
        case "directory":
            odd.mkdir()
        case "loop":
            odd.symlink_to(odd)
        case "dangling":
            odd.symlink_to(tmp_path / "nowhere")
        case _:
            odd.write_bytes(
                {
                    "empty": b"",
                    "packed": gzip.compress(whole),
                    "of_utf16": whole.decode().encode("utf-16"),
                    "appended": whole + whole,
                    "listing": b"#masscan\nopen tcp 80 10.0.0.1 1795795716\n# end\n",
                }[kind]
            )
    for words in (("import", "lab", files[0], str(odd)), ("diff", str(odd), files[1])):
        assert ctl(*words) == code
        assert complaint(capsys).startswith(f"agentctl: {odd}: {reason}")
    assert ctl("list") == 0
    assert "no scans are stored" in capsys.readouterr().out


def test_a_report_that_comes_through_a_pipe_is_read_and_one_that_does_not_say_when_it_began_is_compared(
    ctl: Ctl, tmp_path: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe.xml"
    os.mkfifo(pipe)
    timeless = Path(files[0]).read_bytes().replace(f' start="{START}"'.encode(), b"")
    with subprocess.Popen(["tee", str(pipe)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as writer:
        assert writer.stdin is not None
        writer.stdin.write(timeless)
        writer.stdin.close()
        assert ctl("diff", str(pipe), files[1]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("pipe.xml, - -> after.xml, 20")


def test_a_file_whose_name_is_no_text_is_stored_under_its_name_with_escapes(
    ctl: Ctl, tmp_path: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.xml")
    Path(files[1]).rename(odd)
    shown = f"{tmp_path}/caf\\xe9.xml"
    assert ctl("import", "lab", files[0], odd, "--json") == 0
    assert [one["file"] for one in json.loads(capsys.readouterr().out)["imported"]] == [files[0], shown]
    assert ctl("show", "lab", "2", "--json") == 0
    assert "caf\\\\xe9.xml" in capsys.readouterr().out
    assert ctl("import", "lab", odd) == 1
    assert complaint(capsys) == f"agentctl: {shown}: it was imported already: run 2 of lab"
    assert ctl("diff", files[0], odd, "--json") == 0
    assert json.loads(capsys.readouterr().out)["second"]["name"] == "caf\\xe9.xml"


def test_an_import_waits_for_no_scan_that_is_under_way(
    ctl: Ctl, prefix: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    store = ScanStore(prefix / "spool" / "lab" / "scan.db")
    try:
        assert ctl("import", "lab", files[0]) == 2
    finally:
        store.close()
    assert "another scan of this service is running" in complaint(capsys)


def test_what_is_not_there_is_said_in_one_line(
    ctl: Ctl, prefix: Path, tmp_path: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ctl("show") == 2
    assert complaint(capsys) == f"agentctl: no scans are stored below {prefix / 'spool'}"
    assert ctl("import", "lab", files[0]) == 0
    capsys.readouterr()
    for words, told in {
        ("show", "nobody"): "agentctl: no scan is named 'nobody'; there is lab",
        ("show", "lab", "7"): "agentctl: lab has no run 7; there is 1",
        ("show", "--frob"): "agentctl: '--frob' names no run; a run is its number, last, previous",
        ("show", "1", "2"): "agentctl: one run is shown, and 1, 2 are 2 words",
        ("diff", "1"): "agentctl: two runs or reports are compared, and 1 is 1",
        ("diff", "@5", "1"): "agentctl: lab has no run that began before @5; there is 1",
        ("export", "xml", "lab", "-4"): "agentctl: lab has no run -4; there is 1",
    }.items():
        assert ctl(*words) == 1
        assert complaint(capsys).startswith(told)
    assert ctl("diff") == 2
    assert complaint(capsys) == "agentctl: lab has finished 1 run so far"
    (prefix / "spool" / "edge").mkdir()
    (prefix / "spool" / "edge" / "store.json").write_text("{}")
    assert ctl("import", "edge", files[0]) == 1
    assert complaint(capsys) == f"agentctl: {prefix / 'spool' / 'edge'} holds something else; choose another name"
    assert ctl("import", "other", files[0]) == 0
    capsys.readouterr()
    assert ctl("show") == 1
    assert complaint(capsys) == "agentctl: there are several scans; name one: lab, other"


ODD = ("'text'", "x'00ff'", "1e300", "9e999", "-1e300", "'[1]'")
SHOWN = (
    *(("list", "lab"), ("list", "--json"), ("show", "lab"), ("show", "lab", "--json"), ("hosts",), ("hosts", "--json")),
    *(("diff", "lab"), ("report", "lab", "--json"), ("report", "-o", "-", "--from", f"@{START - DAY}")),
    *(("export", form, "lab") for form in ("xml", "json", "csv", "markdown")),
)


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("runs", ("started", "ended", "loss", "hosts_up", "message", "declared", "argv", "site")),
        ("hosts", ("address", "mac", "names", "first_seen", "last_seen", "misses", "everything")),
        ("ports", ("port", "state", "reason", "last_seen", "misses")),
        ("services", ("name", "version", "cpe")),
        ("changes", ("time", "address", "old")),
        ("coverage", ("low", "zone", "family", "outcome")),
        ("pictures", ("data",)),
    ],
)
def test_a_memory_with_values_that_do_not_belong_there_is_no_internal_error(
    ctl: Ctl,
    prefix: Path,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    table: str,
    columns: Sequence[str],
) -> None:
    """It may have been written by the worker of another user."""
    assert ctl("import", "lab", *files) == 0
    path = prefix / "spool" / "lab" / "scan.db"
    whole = path.read_bytes()
    for column, value in product(columns, ODD):
        path.write_bytes(whole)
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")
            database.commit()
        capsys.readouterr()
        for words in SHOWN:
            code = ctl(*words)
            told = capsys.readouterr().err
            assert "internal error" not in told, (column, value, words)
            assert code in (0, 2) and len(told.splitlines()) <= 1, (column, value, words, told)


def test_a_scan_may_be_called_as_a_run_is(ctl: Ctl, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("lab", "last"):
        assert ctl("import", name, *files) == 0
    capsys.readouterr()
    for words, run in ((("last",), 2), (("last", "last"), 2), (("last", "previous"), 1), (("last", "now"), 2)):
        assert ctl("show", *words, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["scan"], told["run"]) == ("last", run)
    assert ctl("diff", "last", "previous", "last") == 0
    assert capsys.readouterr().out.startswith("last 1, ")
    assert ctl("show", "previous") == 1
    assert complaint(capsys) == "agentctl: there are several scans; name one: lab, last"


def test_a_file_that_looks_like_a_name_is_hinted_at(
    ctl: Ctl,
    prefix: Path,
    tmp_path: Path,
    files: tuple[str, str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("plain", "plain.nmap"):
        shutil.copy(files[0], name)
    assert ctl("diff", "plain", files[1]) == 1
    assert complaint(capsys) == (
        "agentctl: no scan is named 'plain'; there are none; if the file plain is meant, write ./plain"
    )
    assert ctl("diff", "plain.nmap", files[1]) == 2
    assert complaint(capsys).endswith(f"below {prefix / 'spool'}; if the file plain.nmap is meant, write ./plain.nmap")
    assert ctl("diff", "./plain", files[1]) == 0
    assert ctl("import", "lab", *files) == 0
    capsys.readouterr()
    assert ctl("diff", "lab", "plain.nmap", "last") == 1
    assert complaint(capsys).endswith("; if the file plain.nmap is meant, write ./plain.nmap")
    assert ctl("diff", "nothing", files[1]) == 1
    assert "if the file" not in complaint(capsys)


@pytest.mark.parametrize("harm", ["newer", "empty", "damaged"])
def test_a_memory_that_cannot_be_read_is_told_of_and_the_others_are_shown(
    ctl: Ctl, prefix: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    for name in ("lab", "other"):
        assert ctl("import", name, *files) == 0
    path = prefix / "spool" / "other" / "scan.db"
    if harm == "newer":
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 99")
            assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    elif harm == "empty":
        path.write_bytes(b"")
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    capsys.readouterr()
    for words, scans in ((("list",), "scans"), (("hosts",), "hosts"), (("report",), "scans")):
        assert ctl(*words, "--json") == 0
        told = capsys.readouterr()
        assert {one["scan"] for one in json.loads(told.out)[scans]} == {"lab"}
        (note,) = json.loads(told.out)["unreadable"]
        assert note.startswith(f"{path}: ")
        assert f"agentctl: {note}" in told.err.splitlines()
    assert ctl("list") == 0
    told = capsys.readouterr()
    assert {line.split()[0] for line in told.out.splitlines()[1:]} == {"lab"}
    assert told.err == f"agentctl: {note}\n"
    # It is an error where it was named, and where there is no other.
    for command in ("list", "hosts"):
        assert ctl(command, "lab", "other") == 2
        assert complaint(capsys) == f"agentctl: {note}"
    shutil.rmtree(prefix / "spool" / "lab")
    for command in ("list", "hosts", "report"):
        assert ctl(command, "--json") == 2
        assert complaint(capsys) == f"agentctl: {note}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root looks with the eyes of another")
def test_root_reads_and_writes_with_the_eyes_of_the_owner(
    open_directory: Path, files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = open_directory / "srv"
    for name in ("key", "run", "tmp", "log", "spool"):
        (prefix / name).mkdir(parents=True)
    for path in (prefix, *prefix.iterdir()):
        os.chown(path, 65534, 65534)
    assert main(["--prefix", str(prefix), "scan", "import", "lab", files[0]]) == 0
    assert {path.stat().st_uid for path in (prefix / "spool" / "lab").iterdir()} == {65534}
    outside = open_directory / "outside"
    outside.mkdir(0o700)
    (prefix / "spool" / "lab" / "scan.db").rename(outside / "scan.db")
    (prefix / "spool" / "lab" / "scan.db").symlink_to(outside / "scan.db")
    capsys.readouterr()
    assert main(["--prefix", str(prefix), "scan", "show", "lab"]) == 2
    assert "cannot be" in complaint(capsys)
