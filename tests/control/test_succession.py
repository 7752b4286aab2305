"""A process becomes another program with all that is to survive it, or goes on as if nothing had been asked."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent import __version__
from agent.control import baton
from agent.control.baton import FORMAT, Outer, Received
from agent.control.console import Untold
from agent.control.succession import Succession, held_by, successor
from agent.declaration.model import AgentSettings, Declaration
from agent.errors import RuntimeFailure
from agent.linux import memfd, notify
from agent.linux.environment import Program, running_program
from agent.linux.notify import NotifyReceiver, SystemdNotifier
from agent.supervisor.engine import SupervisorState
from agent.supervisor.report import ReloadReport
from agent.telemetry.events import History
from tests.linux.processes import open_fds, scripted
from tests.supervisor.conftest import Host, host, loop, subreaper

__all__ = ["host", "loop", "subreaper"]

WORDS = ["daemon", "plain", "/srv", "/srv/key/env.toml"]
NOTHING = SupervisorState(
    declaration=Declaration(agent=AgentSettings(server="h"), services={}), contained_by="sweep", instance="i", units=[]
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[NotifyReceiver]:
    """What stands for systemd's socket."""
    found = NotifyReceiver(tmp_path / "notify")
    yield found
    found.close()


@pytest.fixture
def notifier(receiver: NotifyReceiver) -> Iterator[SystemdNotifier]:
    found = SystemdNotifier({"NOTIFY_SOCKET": receiver.address, "WATCHDOG_USEC": "9000000"})
    yield found
    found.close()


@pytest.fixture
def succession(notifier: SystemdNotifier) -> Succession:
    return Succession(WORDS, {"HOME": "/", "PATH": "/usr/bin:/bin"}, notifier)


@pytest.fixture
def received() -> Iterator[Received]:
    """A baton from a version 0.0.9 that does not exist any more."""
    outer = Outer(
        format=FORMAT,
        id="1234",
        version="0.0.9",
        program=Program(["/no/such/agentctl"], {"OF": "0.0.9"}),
        frozen_at=time.monotonic() - 0.25,
        descriptors=[0, 1],
        inner=msgspec.Raw(b"{}"),
    )
    fd = baton.seal(outer)
    before = open_fds()
    yield Received(fd, outer, None)
    if open_fds() == before:
        os.close(fd)


def said(receiver: NotifyReceiver) -> list[dict[str, str]]:
    return [notification.fields for notification in receiver.receive()]


FORGOTTEN = [{"FDSTOREREMOVE": "1", "FDNAME": "handover"}, {"FDSTOREREMOVE": "1", "FDNAME": "output"}]


# -- what is told of it ------------------------------------------------------------------------------------------------


def test_what_is_installed_and_is_this_very_version_is_no_successor() -> None:
    assert successor() is None


def test_a_report_goes_from_begun_to_done(succession: Succession, received: Received, receiver: NotifyReceiver) -> None:
    assert succession.report.state == "none"
    begun = succession.begin(Program(["/srv/lib/agent/0.2.0/agentctl"], {}))
    assert (begun.state, begun.before, begun.after) == ("begun", __version__, "/srv/lib/agent/0.2.0/agentctl")
    assert begun.id != succession.begin(running_program()).id
    succession.fail("nobody could")
    assert (succession.report.state, succession.report.message) == ("failed", "nobody could")
    # The next program, with what it was handed.
    succession.taken_over(received)
    report = succession.report
    assert (report.id, report.state, report.before, report.after) == ("1234", "begun", "0.0.9", __version__)
    assert report.pause_ms is not None and 250 <= report.pause_ms < 1000
    assert report.message.startswith(f"version 0.0.9 handed over to {__version__}; for {report.pause_ms:g} ms")
    assert said(receiver) == FORGOTTEN
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(received.fd)
    succession.complete(ReloadReport(unchanged=3), None)
    assert (succession.report.state, succession.report.reload) == ("done", ReloadReport(unchanged=3))
    succession.complete(None, "it has mistakes")
    assert (succession.report.state, succession.report.refused) == ("done", "it has mistakes")


def test_one_that_came_back_is_told_as_failed(succession: Succession, received: Received) -> None:
    succession.taken_over(received._replace(refused="version 0.2.0 cannot take over: no"))
    report = succession.report
    assert (report.id, report.state, report.before) == ("1234", "failed", "0.0.9")
    assert report.message == (
        "0.0.9 runs on: the version to follow could not take over: version 0.2.0 cannot take over: no"
    )


def test_one_that_nobody_survived_is_told_by_who_was_started_anew(
    succession: Succession, received: Received, receiver: NotifyReceiver
) -> None:
    succession.crashed(received.outer)
    assert (succession.report.id, succession.report.state) == ("1234", "failed")
    assert succession.report.message == (
        f"the agent died while version 0.0.9 handed over; version {__version__} was started anew"
    )
    assert said(receiver) == FORGOTTEN


# -- becoming another --------------------------------------------------------------------------------------------------

BECOME = """
import json, os, sys
from agent.control.console import Untold
from agent.control.succession import Succession
from agent.linux.environment import Program
from agent.linux.notify import SystemdNotifier
from tests.control.test_succession import NOTHING, WORDS
from agent.telemetry.events import History
lock, control, lost = (os.open(place, os.O_RDONLY) for place in ("/usr", "/etc", "/var"))
os.environ["NOTIFY_SOCKET"] = {address!r}
os.environ["AGENT_HANDOVER"] = "77"
notifier = SystemdNotifier(os.environ)
del os.environ["AGENT_HANDOVER"]
succession = Succession(WORDS, dict(os.environ), notifier)
succession.begin(Program(["{program}"], {{"OF_THE_NEXT": "1"}}))
os.umask(0o027)
succession.pass_on(
    Program(["{program}"], {{"OF_THE_NEXT": "1"}}), since=1.5, lock=lock, control=control, remove=None,
    supervisor=NOTHING, history=History(newest=7), console=Untold(b"half a", 2),
)
"""

SHOW = """#!/usr/bin/python3
import json, os, sys
fd = int(os.environ["AGENT_HANDOVER"])
outer = json.loads(os.pread(fd, 1 << 20, 0))
places = []
for fd in range(3, 100):
    try:
        places.append(os.readlink(f"/proc/self/fd/{fd}"))
    except OSError:
        pass
umask = os.umask(0)
print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ), outer, places, umask]))
"""


def test_the_next_program_finds_the_baton_the_descriptors_and_the_environment(
    tmp_path: Path, receiver: NotifyReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "agentctl"
    program.write_text(SHOW)
    program.chmod(0o755)
    for name, value in (("LANG", "C.UTF-8"), ("WATCHDOG_USEC", "5")):
        monkeypatch.setenv(name, value)
    _, words, environment, outer, places, umask = json.loads(
        scripted(BECOME.format(address=receiver.address, program=program))
    )
    assert words == WORDS
    assert environment["NOTIFY_SOCKET"] == receiver.address
    assert (environment["LANG"], environment["WATCHDOG_USEC"], environment["OF_THE_NEXT"]) == ("C.UTF-8", "5", "1")
    assert environment["AGENT_HANDOVER"] != "77"
    assert "AGENT_HANDOVER_REFUSED" not in environment
    assert umask == 0o027
    assert sorted(places) == ["/etc", "/memfd:agent-handover (deleted)", "/usr"]
    assert (outer["format"], outer["version"], len(outer["descriptors"])) == (FORMAT, __version__, 2)
    assert outer["program"][0] == running_program().argv
    assert outer["inner"]["console"]["left_out"] == 2
    assert (outer["inner"]["since"], outer["inner"]["history"]["newest"]) == (1.5, 7)
    stored, ended = said(receiver)
    assert (stored["FDNAME"], ended) == ("handover", {"READY": "1"})


def test_one_that_cannot_be_executed_leaves_everything_as_it_was(
    succession: Succession, receiver: NotifyReceiver
) -> None:
    lock, control = os.open("/usr", os.O_RDONLY), os.open("/etc", os.O_RDONLY)
    before = open_fds()
    try:
        with pytest.raises(RuntimeFailure, match="cannot execute /no/such/agentctl: No such file or directory"):
            succession.pass_on(
                Program(["/no/such/agentctl"], {}),
                since=1.0,
                lock=lock,
                control=control,
                remove=None,
                supervisor=NOTHING,
                history=History(),
                console=Untold(),
            )
        assert open_fds() == before
        assert not os.get_inheritable(lock) and not os.get_inheritable(control)
    finally:
        os.close(lock)
        os.close(control)
    assert said(receiver) == [{"FDSTORE": "1", "FDNAME": "handover", "FDPOLL": "0"}, {"READY": "1"}, *FORGOTTEN]


def some(count: int) -> str:
    """That many services."""
    texts = (f'[service.s{n}]\nkind = "command"\ncommand = ["/bin/sleep", "86621"]\n' for n in range(count))
    return "".join(texts)


def test_every_descriptor_of_every_service_is_held(host: Host) -> None:
    host.supervise(some(12) + '[service.off]\nkind = "command"\ncommand = ["/bin/true"]\nenabled = false\n')
    held = list(held_by(host.supervisor.freeze()))
    assert len(held) == len(set(held))
    kinds = [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in held]
    assert sum(kind.startswith("socket:") for kind in kinds) == 12
    assert sum(kind.startswith("pipe:") for kind in kinds) == 12
    assert sum(kind == "anon_inode:[pidfd]" for kind in kinds) == 12
    locks = [kind for kind in kinds if kind.endswith(".lock")]
    assert sorted(locks) == sorted(str(host.paths.service_lock(f"s{number}")) for number in range(12))
    assert len(held) == 48


def test_each_output_is_stored_with_the_name_of_its_service_in_the_baton(
    host: Host, succession: Succession, receiver: NotifyReceiver
) -> None:
    host.supervise(some(5))
    with pytest.raises(RuntimeFailure):
        succession.pass_on(
            Program(["/no/such/agentctl"], {}),
            since=1.0,
            lock=0,
            control=1,
            remove=None,
            supervisor=host.supervisor.freeze(),
            history=History(),
            console=Untold(),
        )
    told = [fields for fields in said(receiver) if "FDSTORE" in fields]
    assert [fields["FDNAME"] for fields in told] == ["handover", *["output"] * 5]


def test_a_manager_that_hangs_costs_a_moment_and_not_one_for_each_service(
    host: Host, receiver: NotifyReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_SEND_TIMEOUT", 0.1)
    notifier = SystemdNotifier({"NOTIFY_SOCKET": receiver.address})
    succession = Succession(WORDS, {}, notifier)
    host.supervise(some(12))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as crowd:
        try:
            while True:
                crowd.sendto(b"STATUS=full", receiver.address)
        except BlockingIOError:
            pass
    begun = time.monotonic()
    with pytest.raises(RuntimeFailure):
        succession.pass_on(
            Program(["/no/such/agentctl"], {}),
            since=1.0,
            lock=0,
            control=1,
            remove=None,
            supervisor=host.supervisor.freeze(),
            history=History(),
            console=Untold(),
        )
    # Once for what is stored, twice for what is forgotten again.
    assert 0.2 < time.monotonic() - begun < 0.9
    notifier.close()


# -- and back ----------------------------------------------------------------------------------------------------------


def test_it_is_given_back_with_the_reason_and_with_the_very_same_baton(tmp_path: Path) -> None:
    program = tmp_path / "agentctl"
    program.write_text(
        "#!/bin/sh\n"
        'echo "$AGENT_HANDOVER_REFUSED|$OF|$HOME|$*"; readlink /proc/$$/fd/$AGENT_HANDOVER; readlink /proc/$$/fd/9\n'
    )
    program.chmod(0o755)
    told = scripted(f"""
import os, time
import msgspec
from agent.control import baton
from agent.control.baton import Outer, Received
from agent.control.succession import Succession
from agent.linux.environment import Program
from agent.linux.notify import SystemdNotifier
from tests.control.test_succession import WORDS
os.dup2(os.open("/etc", os.O_RDONLY), 9)
outer = Outer(format=1, id="1", version="0.0.9", program=Program([{str(program)!r}], {{"OF": "0.0.9"}}),
    frozen_at=time.monotonic(), descriptors=[9], inner=msgspec.Raw(b"{{}}"))
received = Received(baton.seal(outer), outer, None)
environ = {{"HOME": "/", "PATH": "/usr/bin:/bin", "OF": "mine"}}
Succession(WORDS, environ, SystemdNotifier({{}})).give_back(received, "no\\0 " + "x" * 2000)
""")
    words, memory, held = told.splitlines()
    reason, *others = words.split("|")
    assert reason == "no  " + "x" * 996
    assert others == ["0.0.9", "/", " ".join(WORDS)]
    assert memory == "/memfd:agent-handover (deleted)"
    assert held == "/etc"


def test_it_is_not_given_back_and_forth(succession: Succession, received: Received) -> None:
    with pytest.raises(RuntimeFailure, match="ours fails; and it was given back before: theirs failed"):
        succession.give_back(received._replace(refused="theirs failed"), "ours fails")


def test_where_nobody_is_left_to_give_it_back_to_both_reasons_are_told(
    succession: Succession, received: Received
) -> None:
    with pytest.raises(RuntimeFailure) as failure:
        succession.give_back(received, "ours fails")
    assert str(failure.value) == (
        "ours fails; and there is no way back: cannot execute /no/such/agentctl: No such file or directory"
    )
    assert memfd.read(received.fd, 10_000), "it is still in our hands"
