"""What a real journal has of the agent and its services, and that neither ever waits for it."""

from __future__ import annotations

import re
import signal
import time
from typing import Any

from agent.telemetry.kinds import KINDS
from tests.harness import wait_until
from tests.system.host import SOURCE, UNIT, Host

# Says what its arguments are, a line each, then waits to be stopped.
SAYS = """
import os, signal, sys
os.write(1, "".join(f"{line}\\n" for line in sys.argv[1:]).encode().decode("unicode_escape").encode("latin-1"))
signal.pause()
"""

# A numbered line every millisecond.
TICKS = """
import itertools, time
for number in itertools.count(1):
    print("tick", number, flush=True)
    time.sleep(0.001)
"""


def says(host: Host, name: str, *lines: str, **keys: str) -> str:
    """The declaration of a service that prints these lines."""
    words = ", ".join(f"'{word}'" for word in (host.program("says", SAYS), *lines))
    more = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f'[service.{name}]\nkind = "command"\ncommand = [{words}]\n{more}'


def await_said(host: Host, name: str, last: str, times: int = 1) -> None:
    """Wait until the journal has the last line of what a service says."""

    def said() -> bool:
        return messages(host.entries(f"AGENT_SERVICE={name}", "AGENT_STREAM=output")).count(last) == times

    wait_until(said, lambda: f"{name} has not said {last!r}: {host.journal('-u', UNIT)}")


def messages(entries: list[dict[str, Any]]) -> list[Any]:
    return [entry["MESSAGE"] for entry in entries]


def fails(name: str) -> str:
    """The declaration of a service that says why and ends with 3, twice."""
    said = "echo starting; echo no such host >&2; exit 3"
    return f'[service.{name}]\nkind = "command"\ncommand = ["/bin/sh", "-c", "{said}"]\nmax_restarts = 1\n'


def test_what_a_service_does_and_says_is_found_by_its_name_and_by_how_urgent_it_is(installed: Host) -> None:
    installed.declare(fails("lan_capture") + says(installed, "web", "<4>careful", "all is well"))
    installed.systemctl("start")
    installed.wait_unit_state(UNIT, StatusText="1 failed, 1 running; failed: lan_capture")
    await_said(installed, "web", "all is well")
    warned = messages(installed.entries("AGENT_SERVICE=lan_capture", "--priority=warning"))
    ended = "exited: exited 3; last words: no such host"
    assert warned == [ended, ended, "failed: exited 3; gave up after 1 restarts within 300 s"]
    said = installed.entries("AGENT_SERVICE=web", "AGENT_STREAM=output")
    assert [(entry["PRIORITY"], entry["MESSAGE"]) for entry in said] == [("4", "careful"), ("6", "all is well")]
    for entry in said:
        assert entry["SYSLOG_IDENTIFIER"] == "web"
        assert entry["_SYSTEMD_UNIT"] == UNIT
    assert installed.journal("AGENT_SERVICE=web", "--priority=warning").rstrip().endswith("]: careful")
    (failed,) = installed.entries("AGENT_EVENT=failed")
    assert failed["MESSAGE_ID"] == KINDS["failed"].id
    assert failed["AGENT_DATA_RUN"] == "2"
    # The log file has the same, as it came.
    assert [line[25:] for line in installed.log("web").splitlines()] == ["<4>careful", "all is well"]


def test_nothing_is_said_twice(installed: Host) -> None:
    installed.declare(says(installed, "web", "once"))
    installed.systemctl("start")
    await_said(installed, "web", "once")
    installed.systemctl("reload")
    installed.systemctl("stop")
    by_the_agent = installed.entries(f"_SYSTEMD_UNIT={UNIT}")
    assert {entry["_TRANSPORT"] for entry in by_the_agent} == {"journal"}
    assert len(set(messages(by_the_agent))) == len(by_the_agent) >= 9
    assert [message for message in messages(by_the_agent) if "unchanged" in message] == ["reloaded: 1 unchanged"]
    for word in ("once", "agent ready: 1 running", "agent stopped: every service is stopped"):
        assert word in messages(by_the_agent)


def test_a_hostile_service_forges_nothing(installed: Host) -> None:
    lines = (
        r"x\0PRIORITY=0\rMESSAGE_ID=0\x1b[2J\xff",
        r"AGENT_SERVICE=other",
        r"MESSAGE\n\x05\0\0\0\0\0\0\0other",
        r"",
        r".",
        r"_PID=1",
    )
    installed.declare(says(installed, "web", *lines) + says(installed, "other"))
    installed.systemctl("start")
    await_said(installed, "web", "_PID=1")
    assert installed.entries("AGENT_SERVICE=other", "AGENT_STREAM=output") == []
    said = installed.entries("AGENT_STREAM=output")
    # What is no text comes as a list of its bytes.
    assert [bytes(text) if isinstance(text, list) else text.encode() for text in messages(said)] == [
        b"x\0PRIORITY=0\rMESSAGE_ID=0\x1b[2J\xff",
        b"AGENT_SERVICE=other",
        b"MESSAGE",
        b"\x05\0\0\0\0\0\0\0other",
        b".",
        b"_PID=1",
    ]
    for entry in said:
        assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], entry["AGENT_SERVICE"]) == ("6", "web", "web")
        assert entry["_PID"] == str(installed.pid)
        assert "MESSAGE_ID" not in entry


def test_the_catalog_explains_every_kind_of_event(installed: Host) -> None:
    installed.copy_in(SOURCE / "systemd/agent.catalog", "/usr/local/lib/systemd/catalog/agent.catalog")
    installed.run(["journalctl", "--update-catalog"])
    known = installed.run(["journalctl", "--list-catalog"]).stdout
    assert all(kind.id in known for kind in KINDS.values())
    installed.declare(fails("web"))
    installed.systemctl("start")
    installed.wait_unit_state(UNIT, StatusText="1 failed; failed: web")
    explained = installed.journal("--catalog", "AGENT_EVENT=failed")
    assert re.search("Subject: Service web has failed\n", explained)
    assert re.search("    agentctl start web\n", explained)


def test_a_wrong_declaration_is_an_error_in_the_journal_too(installed: Host) -> None:
    installed.declare(says(installed, "web") + "colour = 3\n")
    assert installed.systemctl("start", check=False).returncode == 1
    errors = messages(installed.entries(f"_SYSTEMD_UNIT={UNIT}", "--priority=err"))
    assert [message for message in errors if message.startswith("/srv/key/env.toml:4: service.web.colour: ")] == errors
    assert len(errors) == 1


def test_an_entry_that_is_too_large_for_a_datagram_arrives_as_it_is(installed: Host) -> None:
    installed.copy_in(SOURCE / "agent/linux/journal.py", "/opt/tests/journal.py")
    program = (
        "from journal import Journal, encode\n"
        "text = bytes(range(1, 256)) * 8_000\n"
        'assert Journal().send(encode([("MESSAGE", text), ("AGENT_EVENT", b"large")]))'
    )
    installed.run(["python3", "-c", program], user="agent", environment={"PYTHONPATH": "/opt/tests"})
    (entry,) = installed.entries("--all", "AGENT_EVENT=large")
    assert bytes(entry["MESSAGE"]) == bytes(range(1, 256)) * 8_000


# -- a journal that comes and goes ------------------------------------------------------------------------------------


def ticking(host: Host) -> str:
    return f'[service.clock]\nkind = "command"\ncommand = ["{host.program("ticks", TICKS)}"]\n'


def ticks(host: Host) -> list[int]:
    """The numbers that the journal has, in its order."""
    said = messages(host.entries("AGENT_SERVICE=clock", "AGENT_STREAM=output"))
    return [int(message.split()[1]) for message in said]


def test_a_journal_that_is_restarted_costs_nothing_and_output_goes_on(installed: Host) -> None:
    installed.declare(ticking(installed))
    installed.systemctl("start")
    agent = installed.pid
    for _ in range(3):
        installed.wait_journal(lambda line: "tick" in line, "--lines=0", "AGENT_SERVICE=clock")
        installed.run(["systemctl", "restart", "systemd-journald"])
    installed.wait_journal(lambda line: "tick" in line, "--lines=0", "AGENT_SERVICE=clock")
    found = ticks(installed)
    assert found == sorted(set(found))
    assert installed.service("clock")["restarts"] == 0
    assert installed.show(UNIT, "MainPID", "NRestarts") == {"MainPID": str(agent), "NRestarts": "0"}


def test_a_journal_that_hangs_is_not_waited_for_and_learns_what_it_missed(installed: Host) -> None:
    installed.declare(ticking(installed) + says(installed, "web"))
    installed.systemctl("start")
    journald = int(installed.show("systemd-journald.service", "MainPID")["MainPID"])
    installed.signal(journald, signal.SIGSTOP)
    try:
        # More than it takes to fill every buffer between the two.
        logged = installed.log("clock").count("\n") + 5000
        wait_until(lambda: installed.log("clock").count("\n") > logged)
        begun = time.monotonic()
        web = installed.service("web")["pid"]
        installed.signal(web, signal.SIGKILL)
        wait_until(lambda: installed.service("web")["pid"] not in (web, None))
        assert time.monotonic() - begun < 5
    finally:
        installed.signal(journald, signal.SIGCONT)
    installed.wait_journal(lambda line: "journal lost: " in line, "AGENT_EVENT=journal_lost")
    installed.wait_journal(lambda line: "tick" in line, "--lines=0", "AGENT_SERVICE=clock")
    # While it makes up for that, a slow machine may lose some again.
    for told in installed.entries("AGENT_EVENT=journal_lost"):
        assert int(told["AGENT_DATA_ENTRIES"]) > 0
        assert told["PRIORITY"] == "4"
    assert [event["kind"] for event in installed.events("--service", "web")].count("exited") == 1
    assert installed.show(UNIT, "NRestarts") == {"NRestarts": "0"}


def test_a_service_that_floods_is_cut_in_the_journal_and_another_is_heard(installed: Host) -> None:
    flood = '[service.flood]\nkind = "command"\ncommand = ["/usr/bin/yes", "spam"]\n'
    installed.declare(flood + says(installed, "web", "calm"))
    installed.systemctl("start")
    installed.wait_journal(lambda line: "more than 300 a second" in line, "AGENT_SERVICE=flood", "--priority=warning")
    await_said(installed, "web", "calm")
    installed.agentctl("restart", "web")
    await_said(installed, "web", "calm", times=2)
    installed.agentctl("stop", "flood")
    kinds = [entry["AGENT_EVENT"] for entry in installed.entries("AGENT_SERVICE=web") if "AGENT_EVENT" in entry]
    assert kinds == ["started", "stopping", "exited", "started"]
    flooded = installed.entries("AGENT_SERVICE=flood", "AGENT_STREAM=output")
    seconds = (int(flooded[-1]["__REALTIME_TIMESTAMP"]) - int(flooded[0]["__REALTIME_TIMESTAMP"])) / 1e6
    assert len(flooded) <= 1000 + 300 * seconds + 300
    missing = installed.entries("AGENT_SERVICE=flood", "AGENT_EVENT=output_left_out")
    assert sum(int(entry.get("AGENT_DATA_LINES", 0)) for entry in missing) > 100_000
