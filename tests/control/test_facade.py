"""Who may become what, and when: a trial comes first, and whatever ends it leaves the way free for the next."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agent import __version__
from agent.control import facade
from agent.control.facade import RunningAgent
from agent.control.succession import Succession
from agent.errors import DeclarationError, RequestRefused, RuntimeFailure
from agent.linux.environment import Program, running_program
from agent.linux.notify import NotifyReceiver, SystemdNotifier
from tests.supervisor.conftest import Host, host, loop, subreaper, until

__all__ = ["host", "loop", "subreaper"]

T = TypeVar("T")
DEAF = """
[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; echo {word}; while :; do sleep 0.01; done"]
stop_timeout = "500ms"
"""


class Installed:
    """An agent that is up, what is installed beside it, and what it became."""

    def __init__(self, host: Host, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.program = directory / "agentctl"
        self.became: list[Program] = []
        self.receiver = NotifyReceiver(directory / "systemd")
        notifier = SystemdNotifier({"NOTIFY_SOCKET": self.receiver.address})
        self.succession = Succession([], {}, notifier)
        self.agent = RunningAgent(host.supervisor, host.events, notifier, self.succession, self.hand_over, since=0.0)
        self.agent.is_up()
        self.offer("exit 0")
        monkeypatch.setattr(facade, "installed_program", lambda: Program([str(self.program)], {}))
        monkeypatch.setattr(facade, "successor", lambda: Program([str(self.program)], {}))
        self.close = notifier.close

    async def hand_over(self, program: Program) -> None:
        self.became.append(program)

    def offer(self, script: str) -> None:
        """From now on this is installed."""
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    def do(self, work: Awaitable[T]) -> T:
        return self.host.loop.run_until_complete(asyncio.ensure_future(work, loop=self.host.loop))

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self.host.loop.create_task(work)

    def heard(self) -> list[str]:
        """What systemd was told, but for the status and for patience."""
        told = [name for notification in self.receiver.receive() for name in notification.fields]
        return [name for name in told if name in ("READY", "RELOADING")]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.host.events.last(100) if event.service is None]


@pytest.fixture
def installed(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    host.declare("")
    made = Installed(host, tmp_path, monkeypatch)
    assert made.heard() == ["READY"]
    yield made
    made.close()
    made.receiver.close()


Ask = Callable[[RunningAgent], Coroutine[Any, Any, Any]]
BOTH = pytest.mark.parametrize("ask", [RunningAgent.upgrade, RunningAgent.reload], ids=["upgrade", "reload"])


@BOTH
def test_what_passes_its_self_test_follows(installed: Installed, ask: Ask) -> None:
    answer = installed.do(ask(installed.agent))
    report = installed.agent.handover()
    assert report.id in (getattr(answer, "id", ""), getattr(answer, "handover", ""))
    assert (report.state, report.before, report.after) == ("begun", __version__, str(installed.program))
    installed.do(asyncio.sleep(0))
    assert installed.became == [Program([str(installed.program)], {})]
    assert installed.kinds()[-1] == "handover"
    assert installed.agent.state() == "reloading"
    assert installed.heard() == ["RELOADING"], "it is ready again when it has followed"


@BOTH
def test_what_fails_it_does_not_and_may_be_tried_again(installed: Installed, ask: Ask) -> None:
    installed.offer("echo no good; exit 2")
    for _ in range(2):
        with pytest.raises(RuntimeFailure, match=r"fails its self-test \(exited 2\): no good"):
            installed.do(ask(installed.agent))
        assert installed.agent.state() == "running"
        assert installed.heard() == ["RELOADING", "READY"]
    assert installed.kinds() == ["upgrade_refused", "upgrade_refused"]
    assert (installed.agent.handover().state, installed.became) == ("none", [])
    installed.offer("exit 0")
    assert installed.do(installed.agent.upgrade()).state == "begun"


@BOTH
def test_without_descriptors_for_a_trial_it_is_refused_and_may_be_tried_again(installed: Installed, ask: Ask) -> None:
    async def without() -> None:
        work = ask(installed.agent)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))  # for reading the declaration
        try:
            await work
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with pytest.raises(RuntimeFailure, match="cannot be tried out: Too many open files"):
        installed.do(without())
    assert installed.agent.state() == "running"
    assert installed.do(installed.agent.upgrade()).state == "begun"


@BOTH
def test_a_mistake_in_the_declaration_is_found_before_anything_is_tried(installed: Installed, ask: Ask) -> None:
    installed.offer(f"touch {installed.program}.tried")
    installed.host.paths.declaration.write_text("[service.x]\nkind = 1\n")
    with pytest.raises(DeclarationError):
        installed.do(ask(installed.agent))
    assert installed.heard() == ["RELOADING", "READY"]
    assert (installed.agent.state(), installed.kinds()) == ("running", ["reload_refused"])
    assert not Path(f"{installed.program}.tried").exists()


def test_nothing_else_begins_while_one_is_tried_out_or_follows(installed: Installed) -> None:
    installed.offer(f"until [ -e {installed.program}.go ]; do sleep 0.01; done")
    first = installed.begin(installed.agent.upgrade())
    until(installed.host.loop, lambda: installed.agent.state() == "reloading")
    for go_on in (False, True):
        for ask in (installed.agent.upgrade, installed.agent.reload):
            with pytest.raises(RequestRefused, match="ask again afterwards") as refusal:
                installed.do(ask())
            assert refusal.value.status == 409
        if not go_on:
            Path(f"{installed.program}.go").touch()
            assert installed.do(asyncio.wait_for(first, 5)).state == "begun"
    assert installed.became == [Program([str(installed.program)], {})]
    # It came to nothing, and all is as before.
    installed.succession.fail("nobody could take over")
    installed.agent.handover_ended()
    assert (installed.agent.state(), installed.heard()[-1]) == ("running", "READY")
    assert installed.do(installed.agent.upgrade()).state == "begun"


def test_a_reload_that_is_under_way_is_waited_for(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "successor", lambda: None)
    host = installed.host
    host.reload(DEAF.format(word="before"))
    host.declare(DEAF.format(word="after"))
    reloading = installed.begin(installed.agent.reload())
    until(host.loop, lambda: host.report("deaf").state == "stopping")
    with pytest.raises(RequestRefused, match="ask again afterwards"):
        installed.do(installed.agent.upgrade())
    assert installed.do(reloading).restarted == ["deaf"]
    assert installed.heard()[-1] == "READY"
    assert installed.do(installed.agent.upgrade()).state == "begun"


def test_an_agent_that_is_not_up_yet_becomes_nothing_else(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = RunningAgent(
        installed.host.supervisor,
        installed.host.events,
        SystemdNotifier({}),
        installed.succession,
        installed.hand_over,
        since=0.0,
    )
    for ask in (fresh.upgrade, fresh.reload):
        with pytest.raises(RequestRefused, match="the agent is starting: ask again when it is up"):
            installed.do(ask())
    monkeypatch.setattr(facade, "successor", lambda: None)
    assert installed.do(fresh.reload()).handover is None, "the declaration is read in a start as well"


def test_who_stops_meanwhile_becomes_nothing_else(installed: Installed) -> None:
    installed.offer(f"until [ -e {installed.program}.go ]; do sleep 0.01; done")
    upgrading = installed.begin(installed.agent.upgrade())
    until(installed.host.loop, lambda: installed.agent.state() == "reloading")
    installed.agent.stopping = True
    Path(f"{installed.program}.go").touch()
    with pytest.raises(RequestRefused, match="the agent is stopping"):
        installed.do(upgrading)
    assert installed.became == []


def test_whoever_gives_up_waiting_for_a_trial_leaves_the_way_free(installed: Installed) -> None:
    installed.offer("exec sleep 86631")
    upgrading = installed.begin(installed.agent.upgrade())
    until(installed.host.loop, lambda: installed.agent.state() == "reloading")
    trial = installed.agent._handing_over
    assert trial is not None
    upgrading.cancel()
    with pytest.raises(asyncio.CancelledError):
        installed.do(upgrading)
    assert installed.agent.state() == "running"
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        installed.do(asyncio.wait_for(trial, 5))


@pytest.mark.parametrize("mistaken", [False, True])
def test_the_next_program_reads_the_declaration_and_the_report_tells_what_came_of_it(
    installed: Installed, mistaken: bool
) -> None:
    installed.succession.begin(running_program())
    installed.host.declare(DEAF.format(word="up"))
    if mistaken:
        installed.host.paths.declaration.write_text("[service.x]\nkind = 1\n")
    installed.do(installed.agent.reload_after_handover())
    report = installed.agent.handover()
    assert report.state == "done"
    if mistaken:
        assert report.refused is not None and "service.x" in report.refused
    else:
        assert report.reload is not None and report.reload.started == ["deaf"]
    assert installed.heard() == ["READY"]


def test_a_bug_in_that_ends_the_waiting_all_the_same(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken() -> None:
        raise LookupError("a bug")

    installed.succession.begin(running_program())
    monkeypatch.setattr(installed.agent, "_read", mistaken)
    with pytest.raises(LookupError):
        installed.do(installed.agent.reload_after_handover())
    report = installed.agent.handover()
    assert (report.state, report.refused) == ("done", "LookupError('a bug')")
    assert installed.heard() == ["READY"]


def test_systemd_is_asked_for_patience_while_one_is_tried_out(installed: Installed) -> None:
    installed.offer("exit 0")
    installed.do(installed.agent.upgrade())
    told = [notification.fields for notification in installed.receiver.receive()]
    assert [next(iter(fields)) for fields in told] == ["RELOADING", "EXTEND_TIMEOUT_USEC"]


def test_the_event_of_a_reload_tells_what_was_not_started_and_why(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facade, "successor", lambda: None)
    service = '[service.{0}]\nkind = "command"\ncommand = ["/bin/sleep", "86652"]\nenabled = {1}\n'
    installed.host.declare(service.format("off", "false") + service.format("on", "true"))
    installed.do(installed.agent.reload())
    (event,) = [event for event in installed.host.events.last(20) if event.kind == "reloaded"]
    assert event.message == "started on; added off (disabled); 0 unchanged"


def test_the_summary_names_the_first_that_failed_and_says_that_there_are_more(installed: Installed) -> None:
    host = installed.host
    failing = '[service.{0}]\nkind = "command"\ncommand = ["/nowhere/at/all"]\n'
    host.supervise("".join(failing.format(name) for name in "abcdef"))
    agent = RunningAgent(
        host.supervisor, host.events, SystemdNotifier({}), installed.succession, installed.hand_over, since=0.0
    )
    assert agent.summary() == "6 failed; failed: a, b, c, d, e, …"
