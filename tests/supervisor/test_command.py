"""Commands answer with what became of them."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from agent.linux.files import PrefixLock
from agent.supervisor.lifecycle import Phase
from agent.supervisor.report import Action
from tests.supervisor.conftest import Host

SERVICES = """
[service.calm]
kind = "command"
command = ["/bin/sleep", "86761"]

[service.brief]
kind = "command"
command = ["/bin/sh", "-c", "exit 2"]
restart = "no"
enabled = false

[service.done]
kind = "command"
command = ["/bin/true"]
every = "1h"
enabled = false

[service.late]
kind = "command"
command = ["/bin/sleep", "86762"]
ready = "notify"
start_timeout = "30s"
enabled = false

[service.deaf]
kind = "command"
command = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 86763; done"]
stop_timeout = "300ms"
"""


@pytest.fixture
def host(host: Host) -> Host:
    host.supervise(SERVICES)
    return host


@pytest.mark.parametrize(
    ("action", "name", "ok", "state", "message"),
    [
        ("start", "calm", True, "running", "runs already, pid {pid}"),
        ("restart", "calm", True, "running", "restarted, pid {pid}"),
        ("stop", "calm", True, "stopped", "stopped"),
        ("start", "brief", False, "failed", "exited 2"),
        ("restart", "brief", False, "failed", "exited 2"),
        ("start", "done", True, "waiting", "ran: exited 0"),
        ("stop", "done", True, "stopped", "stopped"),
        ("stop", "deaf", True, "stopped", "stopped"),
        ("rotate", "calm", False, "running", "is no capture: it has no segments to close"),
    ],
)
def test_the_answer_is_where_the_service_is(
    host: Host, action: Action, name: str, ok: bool, state: str, message: str
) -> None:
    outcome = host.act(action, name)
    assert (outcome.name, outcome.action, outcome.ok, outcome.state) == (name, action, ok, state)
    assert outcome.message == message.format(pid=outcome.pid)
    assert outcome.pid == host.supervisor.unit(name).pid


def test_what_somebody_else_runs_already_is_told_so(host: Host) -> None:
    elsewhere = PrefixLock(host.paths.service_lock("done"))
    elsewhere.acquire()
    try:
        outcome = host.act("start", "done")
    finally:
        elsewhere.release()
    assert (outcome.ok, outcome.state) == (False, "waiting")
    assert outcome.message == f"not started: it runs already, under process {os.getpid()}"


CRASHING = """
[service.crash]
kind = "command"
command = ["/bin/sh", "-c", "echo no database; exit 3"]
enabled = false

[service.once_more]
kind = "command"
command = ["/bin/sh", "-c", "test -e tried && exec sleep 86764; touch tried; exit 3"]
enabled = false
"""


def test_what_crashes_at_once_is_told_as_it_is_by_then_and_with_its_last_words(host: Host) -> None:
    host.reload(SERVICES + CRASHING)
    outcome = host.act("start", "crash")
    assert (outcome.ok, outcome.state, outcome.pid) == (False, "backoff", None)
    assert outcome.message.startswith("exited 3; retry in 0.")
    assert outcome.message.endswith(" s: no database")


def test_what_crashed_and_runs_by_now_is_told_so(host: Host) -> None:
    place = f'working_directory = "{host.paths.spool}"\n'
    host.reload(SERVICES + CRASHING + place)
    outcome = host.act("start", "once_more")
    assert (outcome.ok, outcome.state) == (False, "running")
    assert outcome.message == f"it ended at once, exited 3, and was started again, pid {outcome.pid}"


def test_a_stop_and_a_start_in_a_row_are_done_in_that_order(host: Host) -> None:
    before = host.supervisor.unit("calm").pid

    async def row() -> list[bool]:
        act = host.supervisor.act
        done = await asyncio.gather(*(act(action, "calm", True) for action in ("stop", "start", "restart", "stop")))
        return [outcome.ok for outcome in done]

    assert host.loop.run_until_complete(row()) == [True, True, True, True]
    assert host.supervisor.unit("calm").pid is None
    assert host.act("start", "calm").pid != before


def test_a_stop_ends_the_wait_for_a_start(host: Host) -> None:
    async def overtake() -> tuple[float, str, bool]:
        starting = asyncio.ensure_future(host.supervisor.act("start", "late", True))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        stopped = await host.supervisor.act("stop", "late", True)
        started = await starting
        return time.monotonic() - begun, started.message, stopped.ok and not started.ok

    seconds, message, fine = host.loop.run_until_complete(overtake())
    assert fine
    assert seconds < 5
    assert message == "still starting when it was to be stopped"


def test_without_waiting_the_answer_is_that_it_was_asked_for(host: Host) -> None:
    outcome = host.act("start", "late", wait=False)
    assert (outcome.ok, outcome.state, outcome.message) == (True, "starting", "asked for")


def test_services_do_not_wait_for_each_other(host: Host) -> None:
    async def both() -> bool:
        starting = asyncio.ensure_future(host.supervisor.act("start", "late", True))
        async with asyncio.timeout(10):
            assert (await host.supervisor.act("stop", "calm", True)).ok
        waited = not starting.done()
        await host.supervisor.act("stop", "late", True)
        await starting
        return waited

    assert host.loop.run_until_complete(both())


def test_a_client_that_gives_up_waiting_does_not_block_the_queue(host: Host) -> None:
    async def give_up() -> None:
        waiting = [asyncio.ensure_future(host.supervisor.act("start", "late", True)) for _ in range(3)]
        await asyncio.sleep(0.05)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(5):
            assert (await host.supervisor.act("stop", "late", True)).ok

    host.loop.run_until_complete(give_up())
    assert host.supervisor.unit("late").phase is Phase.STOPPED
    assert host.supervisor.unit("late").impatient == 0
