"""What two real scans say has changed: told by the program itself, and by ndiff of what it exports."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

from tests.harness import Agent

DECLARED = """
[service.lan_scan]
kind = "scan"
targets = ["127.0.0.1"]
ports = "{port},9"
oncalendar = "yearly"
"""


def test_a_port_that_opened_between_two_runs_is_the_difference_of_them(agent: Agent, tmp_path: Path) -> None:
    def scan() -> None:
        done = agent.ctl("run-once", "lan_scan")
        assert done.returncode == 0, done.stderr

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # the port is taken, and nobody listens yet
        port = listener.getsockname()[1]
        agent.declare(DECLARED.format(port=port))
        scan()
        listener.listen()
        scan()
    told = agent.ctl("scan", "diff", "--json", "--exit-code")
    assert told.returncode == 2, told.stderr
    document = json.loads(told.stdout)
    (opened,) = (one for one in document["changes"] if one["kind"] == "port_opened")
    assert (opened["address"], opened["ports"], opened["before"]) == ("127.0.0.1", str(port), "closed")
    assert opened["sure"]
    assert document["compared"] == {"hosts": 1, "ports": 2}
    (run, *_) = json.loads(agent.ctl("scan", "list", "--json").stdout)["scans"][0]["runs"]
    assert (run["status"], run["degraded"], run["ports_open"]) == ("finished", "", 1)
    names = []
    for which in ("previous", "last"):
        names.append(str(tmp_path / f"{which}.xml"))
        done = agent.ctl("scan", "export", "xml", "lan_scan", which, "-o", names[-1])
        assert done.returncode == 0, done.stderr
    by_ndiff = subprocess.run(["ndiff", *names], capture_output=True, text=True, check=False)
    assert by_ndiff.returncode == 1
    assert f"+{port}/tcp open" in by_ndiff.stdout
    again = json.loads(agent.ctl("scan", "diff", *names, "--json").stdout)
    assert [one["kind"] for one in again["changes"]] == [one["kind"] for one in document["changes"]]
    for words in (
        ("import", "other", *names),
        *(("export", form, "other", "-o", str(tmp_path / form)) for form in ("json", "csv", "markdown")),
        ("report", "-o", str(tmp_path / "page.html")),
        ("show", "other", "1"),
        ("hosts",),
    ):
        done = agent.ctl("scan", *words)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert f"tcp,{port},open" in (tmp_path / "csv").read_text()
